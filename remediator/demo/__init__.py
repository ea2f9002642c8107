"""The demo: a whole stack of real processes on this machine, and the story played on it.

The command line calls it. It ships in the wheel because it is also how the acceptance tests and a
newcomer's own playbooks get real daemons to run against.
"""
