# wall: pids
# tries: processes that start processes, until no more can be started, each in a session of its own
# ends: exit 0 or signal KILL or exit 1
import ctypes, errno, os, socket, sys, time

def say(how, *what): print(how + ":", *what, file=sys.stderr, flush=True)

def refused(what, try_it):
    say("trying", what)
    try: r = try_it()
    except (OSError, ValueError, RuntimeError) as e: return say("held", what, e)
    say("BROKE", what, repr(r)[:200])

say("trying", "a storm of forks")
n = 0
try:
    while n < 400:
        if os.fork() == 0:
            os.setsid()
            time.sleep(3600)
        n += 1
    say("BROKE", n, "processes")
except OSError as e:
    say("held", n, e)
os._exit(0)
