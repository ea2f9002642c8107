/* A GPU library for tests: NVML's names, answers from the environment, which may change meanwhile.
 *
 * FAKE_NVML_COUNT      how many cards (1)
 * FAKE_NVML_RC_<NAME>  what calls of that name return: 3 not supported, 9 no driver, 13 no such call
 * FAKE_NVML_LOST       number of a card that is lost: its calls return 15
 * FAKE_NVML_XIDS       how many faults the first card has reported; their codes are 100, 101, ...
 * FAKE_NVML_HANG       number of seconds that reading a utilisation takes
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef unsigned long long u64;
typedef struct { size_t card; } Set;
typedef struct { void *device; u64 type, data; unsigned gi, ci; } Event;

static int number(const char *name, int otherwise) {
    const char *told = getenv(name);
    return told && *told ? atoi(told) : otherwise;
}
static int rc(const char *name) {
    char variable[64];
    snprintf(variable, sizeof variable, "FAKE_NVML_RC_%s", name);
    return number(variable, 0);
}
static int answer(void *device, const char *name) {
    return (size_t)device == (size_t)number("FAKE_NVML_LOST", -2) + 1 ? 15 : rc(name);
}

int nvmlInitWithFlags(unsigned flags) { (void)flags; return rc("INIT"); }
int nvmlShutdown(void) { return 0; }
const char *nvmlErrorString(int code) { (void)code; return "fake"; }
int nvmlDeviceGetCount_v2(unsigned *count) { *count = number("FAKE_NVML_COUNT", 1); return 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **device) {
    *device = (void *)(size_t)(index + 1);
    return rc("HANDLE");
}
int nvmlDeviceGetIndex(void *device, unsigned *index) { *index = (size_t)device - 1; return 0; }
int nvmlDeviceGetHandleByUUID(const char *uuid, void **device) {
    *device = (void *)1000; /* the one MIG instance there is, part of the third card */
    return strcmp(uuid, "MIG-abcd") ? 6 : 0;
}
int nvmlDeviceGetDeviceHandleFromMigDeviceHandle(void *mig, void **device) {
    *device = (void *)3;
    return mig == (void *)1000 ? 0 : 2;
}
int nvmlDeviceGetUUID(void *device, char *uuid, unsigned length) {
    snprintf(uuid, length, "GPU-%c%c%c%c", (int)('`' + (size_t)device), 'f', '0', '0');
    return answer(device, "UUID");
}
int nvmlDeviceGetUtilizationRates(void *device, unsigned *rates) {
    sleep(number("FAKE_NVML_HANG", 0));
    rates[0] = 98 - (unsigned)(size_t)device; rates[1] = 12;
    return answer(device, "RATES");
}
int nvmlDeviceGetMemoryInfo(void *device, u64 *memory) {
    memory[0] = 8ULL << 30; memory[1] = 5ULL << 30; memory[2] = 3ULL << 30; /* total free used */
    return answer(device, "MEMORY");
}
int nvmlDeviceGetTemperature(void *device, int sensor, unsigned *celsius) {
    (void)sensor; *celsius = 71;
    return answer(device, "TEMPERATURE");
}
int nvmlDeviceGetPowerUsage(void *device, unsigned *mw) { *mw = 312500; return answer(device, "POWER"); }
int nvmlDeviceGetEnforcedPowerLimit(void *device, unsigned *mw) {
    *mw = 700000;
    return answer(device, "LIMIT");
}
int nvmlDeviceGetCurrentClocksEventReasons(void *device, u64 *bits) {
    *bits = 0x44; /* power cap, hot */
    return answer(device, "REASONS");
}
int nvmlDeviceGetCurrentClocksThrottleReasons(void *device, u64 *bits) {
    *bits = 0x1; /* idle: so that the older call can be told from the newer */
    return answer(device, "OLD_REASONS");
}
int nvmlDeviceGetTotalEccErrors(void *device, int type, int counter, u64 *count) {
    (void)counter; *count = type == 0 ? 5 : 1;
    return answer(device, type == 0 ? "CORRECTED" : "UNCORRECTED");
}
int nvmlEventSetCreate(Set **set) { *set = calloc(1, sizeof(Set)); return rc("EVENTS"); }
int nvmlDeviceRegisterEvents(void *device, u64 types, Set *set) {
    (void)types; set->card = (size_t)device;
    return rc("REGISTER");
}
int nvmlEventSetWait_v2(Set *set, Event *event, unsigned ms) {
    static int told = 0;
    (void)ms;
    if (rc("WAIT")) return rc("WAIT");
    if (set->card != 1 || told >= number("FAKE_NVML_XIDS", 0)) return 10; /* timeout */
    event->device = (void *)1; event->type = 8; event->data = 100 + told++;
    return 0;
}
