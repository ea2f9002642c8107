/* A GPU library of one card for tests: NVML's names, answers from the environment. */
#include <stdlib.h>
#include <string.h>

static int code(const char *name) { const char *v = getenv(name); return v ? atoi(v) : 0; }

int nvmlInitWithFlags(unsigned flags) { (void)flags; return code("FAKE_NVML_INIT"); }
int nvmlShutdown(void) { return 0; }
const char *nvmlErrorString(int c) { (void)c; return "fake"; }
int nvmlDeviceGetCount_v2(unsigned *count) { *count = 1; return 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **device) {
    (void)index; *device = (void *)1; return code("FAKE_NVML_HANDLE");
}
int nvmlDeviceGetUtilizationRates(void *device, unsigned *rates) {
    (void)device; rates[0] = 97; rates[1] = 12; return code("FAKE_NVML_RATES");
}
int nvmlDeviceGetMemoryInfo(void *device, unsigned long long *memory) {
    (void)device;
    memory[0] = 8ULL << 30; memory[1] = 5ULL << 30; memory[2] = 3ULL << 30; /* total free used */
    return code("FAKE_NVML_MEMORY");
}
int nvmlDeviceGetTemperature(void *device, int sensor, unsigned *celsius) {
    (void)device; (void)sensor; *celsius = 71; return code("FAKE_NVML_TEMPERATURE");
}
