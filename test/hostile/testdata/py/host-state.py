# wall: files
# tries: core_pattern and its like, opened for writing; the host's secrets, opened for reading
# ends: exit 0
import ctypes, errno, os, socket, sys, time

def say(how, *what): print(how + ":", *what, file=sys.stderr, flush=True)

def refused(what, try_it):
    say("trying", what)
    try: r = try_it()
    except (OSError, ValueError, RuntimeError) as e: return say("held", what, e)
    say("BROKE", what, repr(r)[:200])

for name in ["/proc/sys/kernel/core_pattern", "/proc/sys/kernel/modprobe", "/proc/sys/fs/binfmt_misc/register", "/proc/sysrq-trigger",
    "/proc/sys/net/ipv4/ip_forward", "/sys/kernel/mm/transparent_hugepage/enabled", "/proc/self/oom_score_adj", "/proc/self/uid_map",
    "/proc/self/setgroups", "/proc/1/oom_score_adj", "/usr/new", "/etc/new", "/etc/passwd", "/etc/hosts", "/dev/new", "/new"]:
    refused(name, lambda: os.open(name, os.O_WRONLY | (os.O_CREAT if "new" in name else 0)))
def nonempty(name):
    b = open(name, "rb").read(16)
    if not b.strip(b"0"): raise ValueError("nothing in it")
    return b

for name in ["/etc/shadow", "/proc/kcore", "/proc/kallsyms", "/proc/keys", "/proc/1/environ", "/proc/1/mem", "/proc/1/root/etc/hostname",
    "/sys/kernel/notes", "/dev/mem", "/dev/kmsg", "/proc/timer_list", "/proc/vmallocinfo", "/root", "/home", "/var", "/run", "/boot", "/srv", "/opt", "/mnt"]:
    refused(name, lambda: nonempty(name) if os.path.isfile(name) else os.listdir(name))
