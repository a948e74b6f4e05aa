# wall: processes
# tries: to see and signal others
# ends: exit 0
import ctypes, errno, os, socket, sys, time

def say(how, *what): print(how + ":", *what, file=sys.stderr, flush=True)

def refused(what, try_it):
    say("trying", what)
    try: r = try_it()
    except (OSError, ValueError, RuntimeError) as e: return say("held", what, e)
    say("BROKE", what, repr(r)[:200])

for pid in os.listdir("/proc"):
    if not pid.isdigit() or int(pid) == os.getpid(): continue
    say("trying", pid)
    try: name = open(f"/proc/{pid}/cmdline").read().replace("\0", " ")
    except OSError as e: name = str(e)
    if "mayfly-sandbox broker" in name or "go" == name[:2]: say("BROKE", pid, name)
    try:
        environ = open(f"/proc/{pid}/environ").read()
        if "MAYFLY_SECRET" in environ: say("BROKE", pid, environ)
    except OSError as e: say("held", pid, e)
refused("to read init's memory", lambda: open("/proc/1/mem", "rb").read(1))
refused("to write init's memory", lambda: os.open("/proc/1/mem", os.O_RDWR))
refused("to see init's root", lambda: os.listdir("/proc/1/root"))
refused("to open init's files", lambda: [os.open("/proc/1/fd/" + fd, os.O_RDONLY) for fd in os.listdir("/proc/1/fd")])
