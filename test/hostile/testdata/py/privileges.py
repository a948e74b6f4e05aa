# wall: privileges
# tries: to become somebody: by uid, by capability, by namespace, by a setuid program of the system
# ends: exit 0
import ctypes, errno, os, socket, sys, time

def say(how, *what): print(how + ":", *what, file=sys.stderr, flush=True)

def refused(what, try_it):
    say("trying", what)
    try: r = try_it()
    except (OSError, ValueError, RuntimeError) as e: return say("held", what, e)
    say("BROKE", what, repr(r)[:200])

import subprocess
libc = ctypes.CDLL(None, use_errno=True)
def call(*args):
    r = libc.syscall(*args)
    if r < 0: raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return r
refused("setuid", lambda: os.setuid(0))
refused("setgroups", lambda: os.setgroups([0]))
refused("chown", lambda: os.chown("/storage", 0, 0))
for program in ["su", "sudo", "passwd", "mount", "newgrp", "pkexec", "fusermount3"]:
    path = "/usr/bin/" + program
    if not os.path.exists(path): continue
    say("trying", program)
    try:
        out = subprocess.run([path, "--version"], capture_output=True, timeout=5)
        who = subprocess.run([path, "root", "-c", "id -u"], capture_output=True, stdin=subprocess.DEVNULL, timeout=5).stdout.strip() if program == "su" else b""
        say("BROKE" if who == b"0" else "held", program, who)
    except (OSError, subprocess.TimeoutExpired) as e: say("held", program, e)
for line in open("/proc/self/status"):
    if line.startswith("Cap") and line.split()[1].strip("0"): say("BROKE", line.strip())
