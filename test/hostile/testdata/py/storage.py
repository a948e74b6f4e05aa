# wall: storage
# tries: every kind of file that the daemon must not follow, in its folder
# runs: symlink up hardlink fifo socket many deep name case
# ends: exit 0
# folder: refused symbolic|socket|pipe|deep|name|more|rules
# folder hardlink: kept
# folder case: kept
# folder many: refused .
# folder name: refused .
import ctypes, errno, os, socket, sys, time

def say(how, *what): print(how + ":", *what, file=sys.stderr, flush=True)

def refused(what, try_it):
    say("trying", what)
    try: r = try_it()
    except (OSError, ValueError, RuntimeError) as e: return say("held", what, e)
    say("BROKE", what, repr(r)[:200])

os.chdir("/storage")
kind = sys.argv[1]
say("trying", kind)
if kind == "symlink": os.symlink("/etc/shadow", "shadow")
if kind == "up": os.symlink("../../..", "up")
if kind == "hardlink":
    open("a", "w").write("x")
    os.link("a", "b")
if kind == "fifo": 
    try: os.mkfifo("fifo")
    except OSError as e: os.symlink("x", "fifo")
if kind == "socket": socket.socket(socket.AF_UNIX).bind("socket")
if kind == "many":
    os.symlink("x", "first")
    for n in range(9000):
        try: os.mkdir(f"d{n}"), open(f"d{n}/f", "w")
        except OSError as e: break
if kind == "deep":
    for n in range(40): os.mkdir("d"), os.chdir("d")
if kind == "name": open(b"\xff\n\x1b[2J", "w")
if kind == "case":
    for n in ("A", "a", "Ä", "A\u0308"): open(n, "w")
