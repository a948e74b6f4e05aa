"""A bot that means harm to the gateway. The first word of a message names the attack; see TestMaliciousBot."""
import json, os, random, signal, socket, sys, threading, time

class Line:
    """A connection to the gateway, without the script that stands for deltachat-rpc-server."""
    def __init__(self):
        self.socket = socket.create_connection(("127.0.0.1", 2062), 30)
        self.answers = self.socket.makefile("rb")
        self.last = 0
    def call(self, method, *params):
        self.last += 1
        self.socket.sendall(json.dumps({"jsonrpc": "2.0", "id": self.last, "method": method, "params": params}).encode() + b"\n")
        while True:
            answer = json.loads(self.answers.readline())
            if answer.get("id") == self.last:
                return answer
    def passed(self, method, *params):
        return "error" not in self.call(method, *params)

def say(text, **more):
    answer = line.call("send_msg", account, msg["chatId"], {"text": text, **more})
    assert "error" not in answer, answer

def write(path, content):
    with open(path, "wb") as f:
        f.write(content)

def push(data):
    """Writes until the gateway hangs up."""
    try:
        for at in range(0, len(data), 1 << 16):
            line.socket.sendall(data[at:at + (1 << 16)])
        time.sleep(60)
    except OSError:
        sys.exit("the gateway hung up")

def garbage():
    push(random.randbytes(5000) + b"\n")

def huge():
    push(b'{"id":1,"method":"' + b"x" * (100 << 20))

def deep():
    push(b'{"id":1,"method":"get_message","params":' + b"[" * 100_000 + b"]" * 100_000 + b"}\n")

def flood():
    """Thousands of calls on several connections, of which no answer is read, each up to 100 kB."""
    say("flood: ok")
    assert line.passed("misc_set_draft", account, msg["chatId"], "x" * 99_000, None, None, None, None)
    call = json.dumps({"id": 1, "method": "get_draft", "params": [account, msg["chatId"]]}).encode() + b"\n"
    unread = [Line() for _ in range(3)]
    def pour(l):
        try:
            l.socket.sendall(call * 3000)
        except OSError:
            pass
    for l in unread:
        threading.Thread(target=pour, args=[l], daemon=True).start()
    time.sleep(4)
    os._exit(0)

def slow():
    lines = [Line() for _ in range(3)]
    for b in b'{"id":1,"method":"send_msg","params":[1,12,{"text":"' + b"x" * 1000:
        for l in lines:
            l.socket.sendall(bytes([b]))
        time.sleep(0.3)

def connections():
    """As many connections as go, most of them at once: of the others none may be answered."""
    held, served = [], 0
    for _ in range(150):
        try:
            s = socket.create_connection(("127.0.0.1", 2062), 1 if served < 3 else 0.05)
            s.settimeout(1 if served < 3 else 0.05)
            s.sendall(b'{"id":1,"method":"get_all_account_ids","params":[]}\n')
            served += len(s.recv(1000)) > 0
            held.append(s)
        except OSError:
            pass
    say("connections: ok" if served == 3 else "connections: %d were served" % served)

def ids():
    """Ids that are not the bot's. A contact that has not written is in one of the chats."""
    bad = []
    for n in [0, -1, 1, 3, 7, 9, 2**31, 2**32 - 1, 2**32, 2**53, 2**64, 1.5, 1e300, "1", "", None, True, [], {}, [12], *range(10, 40)]:
        if n != msg["chatId"]:
            for call in [("send_msg", account, n, {"text": "CANARY"}), ("misc_send_text_message", account, n, "CANARY"),
                         ("misc_send_msg", account, n, "CANARY", None, None, None, None), ("set_chat_name", account, n, "CANARY"),
                         ("misc_send_draft", account, n), ("forward_messages", account, [msg["id"]], n)]:
                if line.passed(*call):
                    bad.append(call)
        if n != msg["id"]:
            chat = line.call("get_message", account, n).get("result", {}).get("chatId")
            for call in [("send_edit_request", account, n, "CANARY"), ("delete_messages_for_all", account, [n])]:
                if line.passed(*call) and chat != msg["chatId"]:
                    bad.append(call)
    accounts = set()
    for n in [account, 0, -1, 2, 2**53, 1.5, "1", None, [], {}]:
        accounts.add(json.dumps(line.call("get_config", n, "addr").get("result")))
    if len(accounts) != 1:
        bad.append(accounts)
    say("ids: ok" if not bad else "ids: %s" % bad[:5])

def answers():
    """Apps whose files make core's answers larger than anybody takes: one that is packed to nothing, and one asked for many times at once."""
    import io, zipfile
    def app(name, size):
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as z:
            z.writestr("index.html", "<html/>")
            z.writestr("big.bin", bytes(size))
        write("/tmp/%s.xdc" % name, packed.getvalue())
        return line.call("send_msg", account, msg["chatId"], {"text": name, "file": "/tmp/%s.xdc" % name})["result"]
    bad = []
    for size in [4 << 20, 11 << 20, 40 << 20]:
        answer = line.call("get_webxdc_blob", account, app("app%d" % size, size), "big.bin")
        if "larger than" not in answer.get("error", {}).get("message", ""):
            bad.append(str(answer)[:200])
    say("answers: ok" if not bad else "answers: %s" % bad[:3])
    five = app("five", 5 << 20)
    other = Line()
    for i in range(32):
        other.socket.sendall(json.dumps({"id": i, "method": "get_webxdc_blob", "params": [account, five, "big.bin"]}).encode() + b"\n")
    assert all("error" in json.loads(other.answers.readline()) for i in range(32))

def qr():
    """Codes of others, and what core would do with them."""
    own = line.call("get_chat_securejoin_qr_code", account, None)["result"]
    fingerprint = own.split("#")[1].split("&")[0]
    def there():
        contacts = [n for n in range(1, 60) if line.passed("get_contact", account, n)]
        return json.dumps([contacts, line.call("get_chatlist_entries", account, None, None, None)["result"], line.call("get_contact_ids", account, 0, None)["result"]])
    before, bad = there(), []
    evil = "&a=eve%40evil.test&n=Eve&i=AAAAAAAAAAA&s=BBBBBBBBBBB"
    for code in ["mailto:eve@evil.test", "https://i.delta.chat/#" + "A" * 40 + evil, "OPENPGP4FPR:" + "A" * 40 + "#a=eve%40evil.test&n=Eve&i=AAAAAAAAAAA&s=BBBBBBBBBBB",
                 "DCACCOUNT:https://evil.test/new", "dclogin://eve@evil.test/?p=x&v=1", "DCBACKUP2:x&{}", "socks5://evil.test", "https://t.me/socks?server=evil.test",
                 "BEGIN:VCARD\nN:Eve\nEMAIL:eve@evil.test\nEND:VCARD", "OPENPGP4FPR:" + fingerprint, " " + own, "https://i.delta.chat/#" + fingerprint + "00" + evil,
                 "https://evil.test/#" + fingerprint + evil, ""]:
        if line.passed("check_qr", account, code):
            bad.append(code)
    line.call("check_qr", account, "https://i.delta.chat/#" + fingerprint + evil)
    line.call("check_qr", account, own)
    line.call("create_qr_svg", "mailto:eve@evil.test")
    if there() != before:
        bad.append("%s became %s" % (before, there()))
    say("qr: ok" if not bad else "qr: %s" % bad)

def tried(attempt, *args):
    try:
        attempt(*args)
    except OSError:
        pass

def paths():
    write("/tmp/own", b"O" * 1000)
    os.makedirs("/tmp/dir", exist_ok=True)
    for name, target in [("link", "/etc/passwd"), ("etc", "/etc"), ("self", "/tmp/own"), ("dangling", "/nowhere"), ("fd", "/proc/self/fd/0"),
                         ("loop", "/tmp/loop"), ("secret", "/bundle/secret.vcf"), ("bundle", "/bundle")]:
        os.symlink(target, "/tmp/" + name)
    os.mkfifo("/tmp/fifo")
    tried(os.mknod, "/tmp/device", 0o666 | 0o020000, os.makedev(1, 5))
    tried(os.link, "/etc/passwd", "/tmp/hard")
    tried(os.link, "/bundle/secret.vcf", "/tmp/hard-bundle")
    tried(lambda: open("/tmp/sparse", "wb").truncate(10 << 30))
    tried(lambda: open("/tmp/large", "wb").truncate(30 << 20))
    s = socket.socket(socket.AF_UNIX)
    tried(s.bind, "/tmp/socket")
    names = ["/tmp/" + n for n in ["link", "etc/passwd", "self", "dangling", "fd", "loop", "secret", "bundle/secret.vcf", "fifo", "device", "hard",
        "hard-bundle", "large", "socket", "dir", "own/x", "../etc/passwd", "a\0b", "own\0.png", "x" * 5000, "d/" * 2000]] + [
        "", ".", "..", "/", "/tmp", "../etc/passwd", "../../../../etc/passwd", "//etc/passwd", "/etc/passwd", "file:///etc/passwd", "/dev/zero",
        "/dev/stdin", "/proc/self/fd/0", "/proc/self/environ", "/proc/1/environ", "/proc/self/root/etc/passwd", "/proc/self/cwd/villain.py",
        "/account/core/accounts.toml", "/files/1", "~/x", "\u202e/tmp/own", None, 1, ["/tmp/own"], {"path": "/tmp/own"}]
    bad = []
    for name in names:
        for call in [("send_msg", account, msg["chatId"], {"text": "CANARY", "file": name}), ("send_sticker", account, msg["chatId"], name),
                     ("set_config", account, "selfavatar", name), ("parse_vcard", name),
                     ("misc_set_draft", account, msg["chatId"], None, name, "x", None, None), ("set_chat_profile_image", account, msg["chatId"], name)]:
            harmless = name in ("", None) and call[0] in ("send_msg", "set_config", "misc_set_draft", "set_chat_profile_image") # no file at all
            if not harmless and line.passed(*call):
                bad.append(call)
    for name in ["../x", "a/b", "/etc/passwd", "a\0b", "x" * 300]:
        if line.passed("send_msg", account, msg["chatId"], {"file": "/tmp/own", "filename": name}):
            bad.append(name)
    if not line.passed("send_msg", account, msg["chatId"], {"file": "/tmp/own"}):
        bad.append("its own")
    say("paths: ok" if not bad else ("paths: %s" % bad)[:3000])

def race():
    """A process that swaps a file for something else all the time, while its content is asked for hundreds of times."""
    own = b"BEGIN:VCARD\nVERSION:4.0\nEMAIL:own@example.org\nFN:own\nEND:VCARD\n"
    os.mkdir("/tmp/race")
    os.mkdir("/tmp/race/d")
    write("/tmp/race/own", own)
    def swap():
        f, d, new = "/tmp/race/f.vcf", "/tmp/race/d", "/tmp/race/new"
        while True:
            os.link("/tmp/race/own", new); os.rename(new, f); os.unlink("/tmp/race/own"); write("/tmp/race/own", own)
            os.symlink("/bundle/secret.vcf", new); os.rename(new, f)
            write(new, own); os.rename(new, f)
            os.truncate(f, 30 << 20)
            os.truncate(f, 10)
            os.mkfifo(new); os.rename(new, f)
            os.symlink("/proc/self/environ", new); os.rename(new, f)
            write(d + "/f.vcf", own)
            os.rename(d, d + "2"); os.symlink("/bundle/d", d); os.unlink(d); os.rename(d + "2", d)
    swapper = os.fork()
    if swapper == 0:
        swap()
    seen = {}
    for i in range(880):
        path = "/tmp/race/f.vcf" if i % 2 else "/tmp/race/d/f.vcf"
        if i % 25 == 0:
            line.call("send_msg", account, msg["chatId"], {"text": "raced", "file": path})
            continue
        answer = line.call("parse_vcard", path)
        result = ",".join(c["addr"] for c in answer["result"]) if "result" in answer else "refused"
        seen[result] = seen.get(result, 0) + 1
    assert os.waitpid(swapper, os.WNOHANG) == (0, 0), "it swaps no more"
    os.kill(swapper, signal.SIGKILL)
    foreign = set(seen) - {"own@example.org", "", "refused"}
    tells = len(seen) > 1
    say("race: ok %s" % seen if tells and not foreign else "race: %s" % seen)

def fuzz():
    """Calls of every method with values of every kind, most of them wrong."""
    say("fuzz: ok")
    skip = {"get_next_event", "get_next_event_batch", "wait_next_msgs", "sleep", "delete_chat", "block_chat", "block_contact", "delete_contact",
            "delete_messages", "leave_group", "remove_contact_from_chat", "delete_messages_for_all", "set_chat_ephemeral_timer"}
    methods = [m for m in json.load(open("methods.json")) if m["name"] not in skip]
    rng = random.Random(msg["text"])
    def value(depth=0):
        kinds = [lambda: None, lambda: rng.choice([True, False]), lambda: rng.choice([0, -1, 1, 9, 10, 11, 12, 2**32, 2**53, 2**64, -2**63]),
            lambda: rng.random() * 10 ** rng.randrange(300), lambda: "".join(chr(rng.choice([0, 10, 34, 47, 92, 128, 0x202e, 0xffff, 65])) for _ in range(rng.randrange(50))),
            lambda: rng.choice(["/tmp/own", "/etc/passwd", "mail_pw", "ui.x", "Call", "Until", "\ud800", "../..", "x" * 120_000]),
            lambda: [value(depth + 1) for _ in range(rng.randrange(4))] if depth < 4 else [],
            lambda: {rng.choice(["text", "file", "kind", "duration", "filename", "viewtype", "ui.a", "proxy_url"]): value(depth + 1) for _ in range(rng.randrange(4))} if depth < 4 else {}]
        return rng.choice(kinds)()
    for i in range(900):
        m = rng.choice(methods)
        params = [account if p["name"] == "accountId" and rng.random() < 0.9 else value() for p in m["params"]]
        if rng.random() < 0.1:
            params.append(value())
        line.call(m["name"], *params)
    for raw in [b"[]", b"{}", b"null", b'{"id":1,"id":2,"method":"configure","METHOD":"get_config"}', b'{"id":{},"method":"x"}', b'{"id":null,"method":"x"}',
                b'{"id":1e999,"method":"x"}', b'{"id":"' + b"x" * 50 + b'","method":"x","params":{"a":[[[]]]}}', b'   ', b'"x"', b"1"]:
        line.socket.sendall(raw + b"\n")
    time.sleep(1)
    os._exit(0)

def after():
    """A grandchild that survives its parents, and calls as long as it is answered, and longer."""
    say("after: ok")
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            for s in [signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGPIPE]:
                signal.signal(s, signal.SIG_IGN)
            while True:
                try:
                    ghost = Line()
                    while True:
                        ghost.call("send_msg", account, msg["chatId"], {"text": "ghost"})
                except Exception:
                    time.sleep(0.001)
        os._exit(0)
    time.sleep(0.2)
    os._exit(0)

def term():
    """Calls while the host ends the bot."""
    def last_words(*_):
        other = Line()
        while True:
            other.call("send_msg", account, msg["chatId"], {"text": "ghost"})
    signal.signal(signal.SIGTERM, last_words)
    say("term: ok")

def sealed():
    bad = [] if open(msg["file"]).read() == "an attachment" else ["its content"]
    folder = os.path.dirname(msg["file"])
    for attempt in [lambda: open(msg["file"], "w"), lambda: open(msg["file"], "a"), lambda: os.unlink(msg["file"]), lambda: os.truncate(msg["file"], 0),
                    lambda: os.chmod(msg["file"], 0o777), lambda: os.rename(msg["file"], folder + "/x"), lambda: open(folder + "/new", "w"),
                    lambda: os.symlink("/etc/passwd", folder + "/l"), lambda: os.mkfifo(folder + "/f"), lambda: os.link(msg["file"], "/tmp/l")]:
        try:
            attempt()
            bad.append("attempt %s" % attempt.__code__.co_firstlineno)
        except OSError:
            pass
    if "/account" in json.dumps(msg) or not line.passed("send_msg", account, msg["chatId"], {"text": "back", "file": msg["file"]}):
        bad.append("its path")
    say("sealed: ok" if not bad else "sealed: %s" % bad)

def honest():
    say("you said: " + msg["text"])

line = Line()
[account] = line.call("get_all_account_ids")["result"]
line.call("start_io", account)
while True:
    event = line.call("get_next_event")["result"]["event"]
    if event["kind"] == "IncomingMsg":
        msg = line.call("get_message", account, event["msgId"])["result"]
        globals()[msg["text"].split()[0]]()
