package e2e

import (
	"strings"
	"testing"
	"time"

	"mayfly/internal/bot"
	"mayfly/internal/ledger"
)

// newYear is a schedule that does not come by itself while the test runs, or hardly.
const newYear = "0 0 1 1 *"

// onNewYear adds the schedule to a bundle.
func onNewYear(f files) files { return f.with("\n[[schedule]]\ncron = \"" + newYear + "\"\n") }

// poster sends to every chat that has written to it, and says what the event was.
const poster = `export default {
  async message(msg, env) {
    await env.storage.put("chats/" + msg.chat.id, msg.contact.name)
    return "noted"
  },
  async scheduled(event, env) {
    console.log(event.cron, typeof event.scheduledTime, event.lastRun)
    for (const key of await env.storage.list("chats/")) {
      try {
        await env.send(Number(key.slice(6)), "tick " + (event.lastRun === null ? "first" : "again"))
      } catch (e) {
        console.log("not sent:", e.message)
      }
    }
  },
}`

// due has the bot's schedule come while the host is down, an hour ago, and starts the host.
func (w *world) due(address bot.Address) {
	w.t.Helper()
	rows, err := w.ledger().Schedules(w.ctx, address)
	if err != nil || len(rows) != 1 || !rows[0].Next.After(time.Now()) {
		w.t.Fatalf("the schedules of %s are %+v, %v; want one that is to come", address, rows, err)
	}
	past := time.Now().Add(-time.Hour).Truncate(time.Minute)
	if err := w.ledger().PlanSchedule(w.ctx, address, ledger.Instant{Cron: newYear, At: rows[0].Next, Then: past}); err != nil {
		w.t.Fatal(err)
	}
	w.serve()
}

// scheduledRuns waits until the bot's schedule is to come again, and returns its runs, the newest first.
func (w *world) scheduledRuns(address bot.Address) []ledger.Run {
	w.t.Helper()
	var rows []ledger.Schedule
	err := w.poll(func() bool {
		var err error
		if rows, err = w.ledger().Schedules(w.ctx, address); err != nil {
			w.t.Fatal(err)
		}
		return rows[0].Next.After(time.Now())
	})
	if err != nil {
		w.t.Fatalf("the schedule is still %+v\n%s", rows, w.log)
	}
	all, err := w.ledger().Runs(w.ctx, address, 100)
	if err != nil {
		w.t.Fatal(err)
	}
	var runs []ledger.Run
	for _, r := range all {
		if r.Record.Schedule != "" {
			runs = append(runs, r)
		}
	}
	return runs
}

// TestScheduledRun: what was missed while the host was down is run once. The bot writes to who has written to it, and into their
// group, but not to who has stopped it.
func TestScheduledRun(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	address, invite := w.start("poster001", onNewYear(script("Poster", poster)))
	ada, bob := w.person("ada000031"), w.person("bob000031")
	chat, bobs := ada.join(invite), bob.join(invite)
	ada.say(chat, "hello")
	ada.expect("noted")
	bob.say(bobs, "hello")
	bob.expect("noted")
	group := ada.group("Club", chat, ada.meet(bob))
	ada.say(group, "@Poster hello all")
	ada.expect("noted")
	bob.expect("@Poster hello all")
	bob.expect("noted")
	bob.say(bobs, "/stop")
	if m := bob.hear(); !strings.Contains(m.Text, "/start") {
		t.Errorf("the answer to /stop is %q", m.Text)
	}
	w.awaitJobs(address, 8) // two handshakes each
	w.stop()

	w.due(address)
	if one, two := ada.expect("tick first"), ada.expect("tick first"); one.ChatID == two.ChatID {
		t.Errorf("both came in one chat: %+v, %+v", one, two)
	}
	runs := w.scheduledRuns(address)
	if len(runs) != 1 || runs[0].Record.Status != bot.RunOK || runs[0].Record.Schedule != newYear || runs[0].Record.CPU <= 0 || !runs[0].Committed {
		t.Fatalf("the runs of the schedule are %+v, want one", runs)
	}
	r := runs[0]
	t.Logf("a scheduled run of %s, %s of CPU, the session took %s, core %s of CPU", r.Record.Wall, r.Record.CPU, r.Ended.Sub(r.Started), r.Record.CoreCPU)
	if log := r.Record.Log; !strings.Contains(log, newYear+" number null") || strings.Count(log, "not sent:") != 1 {
		t.Errorf("the bot logged %q, want the event, and that one who has stopped it was refused", log)
	}
	w.stop()
	w.due(address)
	ada.expect("tick again")
	ada.expect("tick again")
	if runs := w.scheduledRuns(address); len(runs) != 2 {
		t.Errorf("%d runs after the schedule came twice", len(runs))
	}
	bob.say(bobs, "/start")
	if m := bob.hear(); !strings.Contains(m.Text, "again") || strings.Contains(m.Text, "tick") {
		t.Errorf("who had stopped the bot heard %q, want only the answer to /start", m.Text)
	}
}

// TestKillInAScheduledRun: the host dies after the bot has said something and before that is committed; it is said once.
func TestKillInAScheduledRun(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	slow := strings.Replace(poster, "    console.log(event.cron", "    ctx.waitUntil(new Promise(r => setTimeout(r, 2000)))\n    console.log(event.cron", 1)
	slow = strings.Replace(slow, "scheduled(event, env)", "scheduled(event, env, ctx)", 1)
	address, invite := w.start("poster002", onNewYear(script("Slow", slow)))
	ada := w.person("ada000032")
	chat := ada.join(invite)
	ada.say(chat, "hello")
	ada.expect("noted")
	w.awaitJobs(address, 3)
	w.stop()
	w.due(address)
	w.await(0, "minirelay", "submitted")
	w.kill()
	if runs, err := w.ledger().Runs(w.ctx, address, 100); err != nil || len(runs) != 1 {
		t.Fatalf("the kill came after the commit: %v, %v", runs, err)
	}
	w.serve()
	ada.expect("tick first")
	if runs := w.scheduledRuns(address); len(runs) != 1 {
		t.Errorf("%d runs of the schedule, want one", len(runs))
	}
	ada.say(chat, "more")
	ada.expect("noted") // and no second tick
}

// TestFailedScheduledRun: nothing of it counts but the record, and it is not run again before the next instant.
func TestFailedScheduledRun(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	failing := strings.Replace(poster, "console.log(event.cron", `await env.storage.put("spoilt", "yes"); for (const key of await env.storage.list("chats/")) await env.send(Number(key.slice(6)), "lost")
    if (event.lastRun === null) throw new Error("on purpose")
    console.log(event.cron`, 1)
	address, invite := w.start("poster003", onNewYear(script("Failing", failing)))
	ada := w.person("ada000033")
	chat := ada.join(invite)
	ada.say(chat, "hello")
	ada.expect("noted")
	w.awaitJobs(address, 3)
	w.stop()
	w.due(address)
	runs := w.scheduledRuns(address)
	if len(runs) != 1 || runs[0].Record.Status != bot.RunError || !strings.Contains(runs[0].Record.Message, "on purpose") || !runs[0].Committed {
		t.Fatalf("the runs of the schedule are %+v, want one that failed", runs)
	}
	ada.say(chat, "more")
	ada.expect("noted") // and nothing of the run
	w.stop()
	w.serve()
	ada.say(chat, "and more")
	ada.expect("noted")
	if runs := w.scheduledRuns(address); len(runs) != 1 {
		t.Errorf("%d runs of the schedule after a restart, want one", len(runs))
	}
}

// TestScheduledProgram prints to chats by their numbers. What may not be written to is in its log.
func TestScheduledProgram(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	address, invite := w.start("poster004", onNewYear(native("Program", "sh", `
if [ -z "$MAYFLY_SCHEDULE" ]; then
  echo "$MAYFLY_CHAT_ID" > "$HOME/chat"
  echo noted
  exit
fi
echo "To: $(cat "$HOME/chat"), 9999"
echo
echo "$MAYFLY_SCHEDULE, $(($MAYFLY_SCHEDULED_TIME % 60)), <${MAYFLY_LAST_RUN}>, $(wc -c), $RECIPIENT"
echo "To: $(cat "$HOME/chat")"
echo "and more"
`)))
	ada := w.person("ada000034")
	chat := ada.join(invite)
	ada.say(chat, "hello")
	ada.expect("noted")
	w.awaitJobs(address, 3)
	w.stop()
	w.due(address)
	ada.expect(newYear + ", 0, <>, 0, " + string(address))
	ada.expect("and more")
	runs := w.scheduledRuns(address)
	if len(runs) != 1 || runs[0].Record.Status != bot.RunOK || !strings.Contains(runs[0].Record.Log, "To: 9999: not sent: send_msg") {
		t.Errorf("the runs of the schedule are %+v, want one that logs what was not sent", runs)
	}
}

// TestScheduledDaemon: a daemon that posts when it is started for a schedule is ended when it is quiet.
func TestScheduledDaemon(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	address, invite := w.start("poster005", onNewYear(resident("Daemon", "python3", client+`
import os
schedule = os.environ.get("MAYFLY_SCHEDULE")
if schedule:
    for entry in rpc("get_chatlist_entries", account, None, None, None):
        try:
            rpc("send_msg", account, entry, {"text": "tick " + schedule})
        except Exception as e:
            print(e, file=sys.stderr)
for msg in messages():
    say(msg, "noted")
`)))
	ada := w.person("ada000035")
	chat := ada.join(invite)
	ada.say(chat, "hello")
	ada.expect("noted")
	w.awaitJobs(address, 3)
	w.stop()
	w.due(address)
	ada.expect("tick " + newYear)
	if runs := w.scheduledRuns(address); len(runs) != 1 || runs[0].Record.Status != bot.RunOK {
		t.Errorf("the runs of the schedule are %+v, want one that was ended when it was quiet", runs)
	}
}

// TestScheduledMailBot: a bot with a mail client of its own finds its INBOX empty, and writes to an address that it knows.
func TestScheduledMailBot(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	address, invite := w.start("poster006", onNewYear(mailBot("Mailing", "python3", mailLoop+`
memory = os.path.join(os.environ["HOME"], "reader")
if "MAYFLY_SCHEDULE" in os.environ:
    assert not list(new())
    news = EmailMessage()
    news["From"], news["To"], news["Subject"] = user, open(memory).read(), "news"
    news.set_content("tick " + os.environ["MAYFLY_SCHEDULE"])
    with connect() as smtp:
        smtp.send_message(news)
def handle(mail):
    open(memory, "w").write(mail["From"].addresses[0].addr_spec)
    answer(mail, "noted")
serve(handle)
`)))
	ada := w.person("ada000036")
	chat := ada.join(invite)
	ada.say(chat, "hello")
	if m := ada.hear(); !strings.Contains(m.Text, "noted") {
		t.Fatalf("ada heard %q", m.Text)
	}
	w.awaitJobs(address, 3)
	w.stop()
	w.due(address)
	if m := ada.hear(); !strings.Contains(m.Text, "tick "+newYear) {
		t.Errorf("ada heard %q", m.Text)
	}
	if runs := w.scheduledRuns(address); len(runs) != 1 || runs[0].Record.Status != bot.RunOK {
		t.Errorf("the runs of the schedule are %+v, want one that was ended when it was quiet", runs)
	}
}

// TestScheduledAtOnce: what a bot that replies at once has said is sent while it runs, and stands though the run fails.
func TestScheduledAtOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	failing := strings.Replace(poster, "await env.send(", "await sendAndWait(env, ", 1) + `
async function sendAndWait(env, to, text) {
  await env.send(to, text)
  await new Promise(r => setTimeout(r, 1000))
  throw new Error("on purpose")
}`
	failing = strings.Replace(failing, `console.log("not sent:", e.message)`, "throw e", 1)
	f := onNewYear(script("At once", failing))
	f["bot.toml"] = "replies = \"at once\"\n" + f["bot.toml"]
	address, invite := w.start("poster007", f)
	ada := w.person("ada000037")
	chat := ada.join(invite)
	ada.say(chat, "hello")
	ada.expect("noted")
	w.awaitJobs(address, 3)
	w.stop()
	w.due(address)
	ada.expect("tick first")
	runs := w.scheduledRuns(address)
	if len(runs) != 1 || runs[0].Record.Status != bot.RunError || runs[0].Record.AtOnce != 1 || runs[0].Record.Schedule != newYear {
		t.Errorf("the runs of the schedule are %+v, want one that failed after it had said something", runs)
	}
	ada.say(chat, "more")
	ada.expect("noted") // and no second tick
}

// TestScheduledProgramTriesAgain: exit code 75 leaves the schedule where it is, and the run is on record.
func TestScheduledProgramTriesAgain(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	address, _ := w.start("poster008", onNewYear(native("Later", "sh", "exit 75")))
	w.stop()
	w.due(address)
	var runs []ledger.Run
	err := w.poll(func() bool {
		var err error
		if runs, err = w.ledger().Runs(w.ctx, address, 10); err != nil {
			t.Fatal(err)
		}
		return len(runs) >= 2 // the second is 15 s after the first
	})
	if err != nil {
		t.Fatalf("the runs are %+v, want two", runs)
	}
	for _, r := range runs {
		if r.Committed || r.Record.ExitCode != 75 || r.Record.Schedule != newYear {
			t.Errorf("a run is %+v, want one that ended with 75 and changed nothing", r)
		}
	}
	rows, err := w.ledger().Schedules(w.ctx, address)
	if err != nil || len(rows) != 1 || rows[0].Attempts != len(runs) || rows[0].Next.After(time.Now()) || !rows[0].Last.IsZero() {
		t.Errorf("the schedule is %+v, %v; want at the same instant, after %d attempts", rows, err, len(runs))
	}
}
