package e2e

import (
	"fmt"
	"strings"
	"testing"

	"mayfly/internal/bot"
	"mayfly/internal/core"
)

// native is a bundle of one script that an interpreter runs.
func native(name, interpreter, script string) files {
	return files{"script": script, "bot.toml": fmt.Sprintf(`
name = %q
summary = "made for a test"
version = "1.0.0"
contact = "mailto:author@example.org"
runtime = "native"
command = [%q, "script"]
[limits]
wall = "5s"
`, name, interpreter)}
}

// TestPythonBot runs the example: the mail on stdin, the reply on stdout, a memory in $HOME, an attachment.
func TestPythonBot(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	address, invite := w.start("counter01", example(t, "counter"))
	ada := w.person("ada000020")
	chat := ada.join(invite)
	ada.say(chat, "tick tick tock")
	ada.expect("tick: 1\ntick: 2\ntock: 1")
	ada.say(chat, "tick")
	ada.expect("tick: 3")
	path := w.write("note.txt", "what is attached")
	if _, err := ada.SendMsg(w.ctx, ada.Account, chat, core.MessageData{Text: "tock", File: path, Filename: "note.txt"}); err != nil {
		t.Fatal(err)
	}
	ada.expect("note.txt has 16 bytes.\ntock: 2")
	if r := w.run(address).Record; r.Status != bot.RunOK || r.CPU <= 0 || r.Memory <= 0 || r.MaxRSS <= 0 || r.Kept != "kept 1 file, 22 B" {
		t.Errorf("the run record lacks something: %+v", r)
	}
}

// TestPipeEnvironment shows what a program is told in its environment, as procmail does, and where it runs.
func TestPipeEnvironment(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	address, invite := w.start("environ01", native("Environ", "sh", `
cat >/dev/null
echo "from $SENDER to $RECIPIENT, $MAYFLY_SENDER_NAME in a $MAYFLY_CHAT_TYPE chat"
echo "home $HOME tmp $TMPDIR here $(pwd) lang $LANG user $(id -un)"
case "$MESSAGE_ID" in "<"*@*">") echo "message id" ;; esac
[ "${#MAYFLY_SENDER_FINGERPRINT}" = 40 ] && echo fingerprint
[ "$MAYFLY_DEADLINE" -gt "$(date +%s)" ] && echo deadline
env | grep -c . >&2
`))
	ada := w.person("ada000021")
	ada.say(ada.join(invite), "hello")
	ada.expect(fmt.Sprintf("from %s to %s, ada000021 in a single chat\nhome /storage tmp /tmp here /bundle lang C.UTF-8 user nobody\nmessage id\nfingerprint\ndeadline",
		"ada000021@"+domain, address))
	if log := w.run(address).Record.Log; log == "" {
		t.Error("what the program wrote on stderr is not in the run's log")
	}
}

// TestFailingPrograms shows the ends that native programs come to, and what their authors read.
func TestFailingPrograms(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name, account, script string
		status                bot.RunStatus
		message               string
	}{
		{"exit code", "exits0001", "echo lost; echo the reason >&2; exit 65", bot.RunError, "exit code 65 (bad data)\nthe reason"},
		{"signal", "signal001", "kill -SEGV $$", bot.RunSignal, "killed by signal 11"},
		{"wall clock", "sleeps001", "sleep 60", bot.RunTimeout, "longer than [limits] wall"},
		{"ignores SIGTERM", "ignores01", "trap '' TERM INT HUP; while :; do sleep 1; done", bot.RunTimeout, "longer than [limits] wall"},
		{"floods its output", "floods001", "while :; do echo xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx; done", bot.RunError, "more than 1 MB"},
		{"floods its log", "floods002", "while :; do echo xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx >&2; done", bot.RunError, "more than 1 MB"},
		{"memory", "memory002", "x=$(head -c 300000000 /dev/zero | tr '\\0' x)", bot.RunSignal, "more memory than [limits] memory"},
		{"says too much", "toolong01", "head -c 200000 /dev/zero | tr '\\0' x", bot.RunError, "at most 100000"},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := newWorld(t)
			address, invite := w.start(test.account, native("Failing", "sh", "case \"$(cat)\" in *fine*) echo fine; exit ;; esac\n"+test.script+"\n"))
			ada := w.person("ada" + test.account[:6])
			chat := ada.join(invite)
			ada.say(chat, "luck")
			w.awaitJobs(address, 3)
			if r := w.run(address).Record; r.Status != test.status || !strings.Contains(r.Message, test.message) {
				t.Errorf("record %s %q (exit code %d, signal %d), want %s with %q", r.Status, r.Message, r.ExitCode, r.ExitSig, test.status, test.message)
			}
			ada.sorry()
			ada.say(chat, "fine")
			ada.expect("fine") // and nothing of the failed run
		})
	}
}

// TestSyntaxErrorsOfInterpretersAreRefused shows that what does not parse is not installed, and where.
func TestSyntaxErrorsOfInterpretersAreRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	address, client := w.newAccount("syntax002")
	w.serve()
	for i, test := range []struct{ interpreter, script, want string }{
		{"python3", "import sys\nif True\n    print(1)\n", "script:2:8: SyntaxError: expected ':'"},
		{"node", "let a = 1\nlet b = ((\n", "script:3:1: SyntaxError:"},
		{"sh", "echo fine\nif true; then\necho\n", "script:4:1: Syntax error:"},
		{"perl", "my $x = 1;\nmy $y = (;\n", "script:2:1: syntax error"},
	} {
		w.append(client, address, native("Syntax", test.interpreter, test.script))
		if mail := w.status(client, i+1); !strings.Contains(mail, "Mayfly-State: refused") || !strings.Contains(mail, test.want) {
			t.Errorf("%s: want a refusal that says %q, got\n%s", test.interpreter, test.want, mail)
		}
	}
}

// TestPerlModulesOfTheBundle: the check of a script finds what the run will find.
func TestPerlModulesOfTheBundle(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	f := native("Modules", "perl", "use Greeting; print Greeting::hello();\n")
	f["lib/Greeting.pm"] = "package Greeting; sub hello { 'hello from a module' } 1;\n"
	f["bot.toml"] = strings.Replace(f["bot.toml"], `"perl", "script"`, `"perl", "-Ilib", "script"`, 1)
	_, invite := w.start("perlmods1", f)
	ada := w.person("ada000023")
	ada.say(ada.join(invite), "hello")
	ada.expect("hello from a module")
}

// TestTemporaryFailureIsTriedAgain: a program that ends with EX_TEMPFAIL is run again, and what it said until then is not said.
func TestTemporaryFailureIsTriedAgain(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	_, invite := w.start("tempfail1", native("Later", "python3", `
import email, email.utils, sys, time
# What a failed run wrote does not count, so it tells by the time that it was run before.
sent = email.utils.parsedate_to_datetime(email.message_from_binary_file(sys.stdin.buffer)["Date"])
if time.time() - sent.timestamp() < 10:
    print("lost")
    sys.exit(75)
print("now")
`))
	ada := w.person("ada000022")
	chat := ada.join(invite)
	ada.say(chat, "try")
	ada.expect("now")
}
