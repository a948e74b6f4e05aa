# wall: ipc
# tries: abstract sockets of the daemon; shared memory of others by name; memory that passes from process to process
# ends: exit 0
import ctypes, errno, os, socket, sys, time

def say(how, *what): print(how + ":", *what, file=sys.stderr, flush=True)

def refused(what, try_it):
    say("trying", what)
    try: r = try_it()
    except (OSError, ValueError, RuntimeError) as e: return say("held", what, e)
    say("BROKE", what, repr(r)[:200])

def abstract(name):
    s = socket.socket(socket.AF_UNIX)
    s.connect("\0" + name)
    return s
refused("@mayfly-hostile", lambda: abstract("mayfly-hostile"))
names = [l.split()[7] for l in open("/proc/net/unix") if len(l.split()) == 8 and l[:3] != "Num"] if os.path.exists("/proc/net/unix") else []
for n in names: say("BROKE", "sees the socket", n)
say("trying", "/dev/shm")
for n in os.listdir("/dev/shm"):
    if n.startswith("mayfly"): say("BROKE", n)
say("held", len(names))
