# wall: files
# tries: to find anything that is not the system's, by walking the whole tree
# ends: exit 0
# within: 30s
import ctypes, errno, os, socket, sys, time

def say(how, *what): print(how + ":", *what, file=sys.stderr, flush=True)

def refused(what, try_it):
    say("trying", what)
    try: r = try_it()
    except (OSError, ValueError, RuntimeError) as e: return say("held", what, e)
    say("BROKE", what, repr(r)[:200])

say("trying", "the whole tree")
n = 0
for base, dirs, files in os.walk("/"):
    if base == "/": dirs[:] = [d for d in dirs if d not in ("usr", "proc")]
    for f in files:
        n += 1
        p = os.path.join(base, f)
        top = p.split("/")[1]
        if top not in ("bundle", "storage", "tmp", "attachments", "etc", "dev"):
            say("BROKE", "there is", p)
for d in ("/usr/local", "/usr/share/mayfly"):
    for base, dirs, files in os.walk(d):
        for f in files[:50]:
            try:
                if b"CANARY" in open(os.path.join(base, f), "rb").read(4096): say("BROKE", base, f)
            except OSError: pass
say("held", n, "files")
