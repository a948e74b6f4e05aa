# wall: network
# tries: the host's ports by address and by name; its name server; to listen where others could come
# ends: exit 0
import ctypes, errno, os, socket, sys, time

def say(how, *what): print(how + ":", *what, file=sys.stderr, flush=True)

def refused(what, try_it):
    say("trying", what)
    try: r = try_it()
    except (OSError, ValueError, RuntimeError) as e: return say("held", what, e)
    say("BROKE", what, repr(r)[:200])

for host, port in [("127.0.0.1", 10025), ("127.0.0.1", 25), ("localhost", 10025), ("::1", 25), ("10.0.0.1", 80), ("192.168.1.1", 80), ("169.254.169.254", 80)]:
    refused((host, port), lambda: socket.create_connection((host, port), 1))
for name in ["example.org", "metadata.google.internal", "host", "relay", "_dns"]:
    refused("the name " + name, lambda: socket.getaddrinfo(name, 80))
def question():
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.settimeout(0.5)
    s.sendto(b"\1\2\1\0\0\1\0\0\0\0\0\0\4evil\4test\0\0\1\0\1", ("127.0.0.53", 53))
    return s.recv(100)
refused("a question to 127.0.0.53", question)
for family, kind, protocol in [(16, 3, 0), (17, 3, 0x300), (2, 3, 1), (40, 1, 0), (38, 5, 0), (31, 3, 1), (2, 1, 262), (2, 1, 132), (44, 3, 0)]:
    refused(("socket", family, kind, protocol), lambda: socket.socket(family, kind, protocol))
