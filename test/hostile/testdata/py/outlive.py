# wall: end
# tries: a hundred grandchildren that ignore every signal and hold stdout open
# limits: wall=3s
# ends: exit 0 or killed wall
# within: 8s
import ctypes, errno, os, socket, sys, time

def say(how, *what): print(how + ":", *what, file=sys.stderr, flush=True)

def refused(what, try_it):
    say("trying", what)
    try: r = try_it()
    except (OSError, ValueError, RuntimeError) as e: return say("held", what, e)
    say("BROKE", what, repr(r)[:200])

import signal
say("trying", "grandchildren")
for n in range(20):
    if os.fork() == 0:
        if os.fork() == 0:
            for s in range(1, 65):
                try: signal.signal(s, signal.SIG_IGN)
                except (OSError, ValueError): pass
            time.sleep(3600)
        os._exit(0)
