# wall: memory
# tries: to take 2 GB: as bytes, and spread over processes so that each takes little
# runs: bytes processes
# ends: killed memory or exit 1 or exit 0
import ctypes, errno, os, socket, sys, time

def say(how, *what): print(how + ":", *what, file=sys.stderr, flush=True)

def refused(what, try_it):
    say("trying", what)
    try: r = try_it()
    except (OSError, ValueError, RuntimeError) as e: return say("held", what, e)
    say("BROKE", what, repr(r)[:200])

say("trying", sys.argv[1])
if sys.argv[1] == "processes":
    for n in range(40):
        if os.fork() == 0:
            held = bytearray(50 << 20)
            for i in range(0, len(held), 4096): held[i] = 1
            time.sleep(5)
            os._exit(0)
    for n in range(40):
        pid, how = os.wait()
        if how == 0: say("note", "one came through")
    say("BROKE", "2 GB in 40 processes")
held = []
for n in range(2048):
    held.append(bytearray(b"x" * (1 << 20)))
say("BROKE", "2 GB")
