# wall: descriptors
# tries: to hold more files than it may, in flight in unix sockets
# ends: exit 0 or exit 1
import ctypes, errno, os, socket, sys, time

def say(how, *what): print(how + ":", *what, file=sys.stderr, flush=True)

def refused(what, try_it):
    say("trying", what)
    try: r = try_it()
    except (OSError, ValueError, RuntimeError) as e: return say("held", what, e)
    say("BROKE", what, repr(r)[:200])

import array
say("trying", "descriptors in flight")
n, pairs = 0, []
try:
    for _ in range(60):
        a, b = socket.socketpair()
        a.setblocking(False)
        pairs.append((a, b))
        for _ in range(20):
            a.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [2] * 200))])
            n += 200
    say("BROKE", n, "descriptors in flight")
except OSError as e:
    say("held", n, e) if n < 20000 else say("BROKE", n, "descriptors in flight")
