# wall: ipc
# tries: to lock files that other programs use, so that they wait
# ends: exit 0
import ctypes, errno, os, socket, sys, time

def say(how, *what): print(how + ":", *what, file=sys.stderr, flush=True)

def refused(what, try_it):
    say("trying", what)
    try: r = try_it()
    except (OSError, ValueError, RuntimeError) as e: return say("held", what, e)
    say("BROKE", what, repr(r)[:200])

import fcntl
held = []
for name in ["/usr/bin/python3", "/usr/bin/sh", "/etc/passwd", "/etc/ld.so.cache", "/dev/null"]:
    say("trying", name)
    try:
        f = open(name, "rb")
        held.append(f)
        fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
        say("held", name, "a lock of its own, if nobody else sees it")
    except OSError as e: say("held", name, e)
say("note", "holding")
time.sleep(0.5)
