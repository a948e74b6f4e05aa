package dispatch

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp/armor"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
	openpgp "github.com/ProtonMail/go-crypto/openpgp/v2"

	"mayfly/internal/bot"
	"mayfly/internal/gate"
	"mayfly/internal/ledger"
	"mayfly/internal/session"
)

func TestWhichMessagesAreTheHosts(t *testing.T) {
	said := func(text string) gate.Verdict {
		return gate.Verdict{Kind: gate.Message, Plain: true, From: "ada@chat.test", Text: text}
	}
	dice := bot.Manifest{Name: "Dice"}
	for text, want := range map[string]bot.Word{
		"/stop": "stop", "/STOP please": "stop", "/start\nagain": "start", "/about@Dice": "about", "/about@dice bot": "about",
		"/usage": "usage", "/help": "help", "/help@dice": "help", "> 2d6\n> and more\n\n/stop": "stop", ">\n/stop": "stop",
		"/stop@Other": "", "/stopit": "", "stop": "", " /stop": "", "/": "", "/@": "", "/roll 2d6": "", "": "", "> /stop": "", "> /stop\n\nno": "",
	} {
		if got := hostWord(said(text), dice); got != want {
			t.Errorf("%q is %q, want %q", text, got, want)
		}
	}
	for text, want := range map[string]bot.Word{
		"/stop": "", "/stop@Dice": "stop", "/stop @dice": "stop", "/stop @other": "", "/help": "", "/help@dice": "help", "> 2d6\n\n/usage@dice": "usage",
	} {
		v := said(text)
		v.Group = true
		if got := hostWord(v, dice); got != want {
			t.Errorf("in a group %q is %q, want %q", text, got, want)
		}
	}
	dice.Commands = []bot.Command{{Name: "help"}, {Name: "start"}}
	if got := hostWord(said("/help"), dice); got != "" {
		t.Errorf("/help of a bot that has its own is the host's %q", got)
	}
	for name, change := range map[string]func(*gate.Verdict){
		"a handshake":                      func(v *gate.Verdict) { v.Kind = gate.Handshake },
		"what the gate is unsure of":       func(v *gate.Verdict) { v.Uncertain = true },
		"more than a text":                 func(v *gate.Verdict) { v.Plain = false },
		"a bot's":                          func(v *gate.Verdict) { v.ByBot = true },
		"of an address nobody vouches for": func(v *gate.Verdict) { v.Misplaced = true },
		"of no address":                    func(v *gate.Verdict) { v.From = "" },
	} {
		v := said("/stop")
		change(&v)
		if got := hostWord(v, dice); got != "" {
			t.Errorf("%s is %q", name, got)
		}
	}
}

func TestWhatStartsNothing(t *testing.T) {
	m := bot.Manifest{Name: "Dice", GroupPrivacy: true}
	for name, c := range map[string]struct {
		v    gate.Verdict
		want string
	}{
		"alone":            {gate.Verdict{Plain: true, Text: "hi"}, ""},
		"chatter":          {gate.Verdict{Plain: true, Group: true, Text: "hi"}, "group privacy"},
		"a mention":        {gate.Verdict{Plain: true, Group: true, Text: "hi @dice"}, ""},
		"a quote":          {gate.Verdict{Plain: true, Group: true, Text: "> hi"}, ""},
		"a cut text":       {gate.Verdict{Plain: true, Group: true, Cut: true, Text: "hi"}, ""},
		"a new member":     {gate.Verdict{Plain: true, Group: true, NewSender: true, Text: "hi"}, ""},
		"more than a text": {gate.Verdict{Group: true, Text: "hi"}, ""},
		"a bot":            {gate.Verdict{Plain: true, ByBot: true, Text: "hi @dice"}, "of a bot"},
	} {
		if got := idle(c.v, m); got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
	if got := idle(gate.Verdict{Plain: true, ByBot: true, Text: "hi"}, bot.Manifest{Name: "Dice", FromBots: true}); got != "" {
		t.Errorf("a bot, where they may wake it: %q", got)
	}
	if got := idle(gate.Verdict{Plain: true, Group: true, Text: "hi"}, bot.Manifest{Name: "Dice"}); got != "" {
		t.Errorf("chatter without privacy: %q", got)
	}
}

// contact is who writes the mails of these tests: core knows its key.
const contact bot.Address = "user00002@chat.test"

// say puts a text of the contact into an INBOX.
func (b *bench) say(a bot.Address, uid uint32, text string) {
	b.t.Helper()
	var inner, armored bytes.Buffer
	fmt.Fprintf(&inner, "From: <%s>\r\nTo: <%s>\r\nMessage-ID: <%d@chat.test>\r\nChat-Version: 1.0\r\n"+
		"Content-Type: text/plain; charset=utf-8\r\n\r\n%s\r\n", contact, a, uid, text)
	to, by := entity(b.t, "bot2-secret.asc"), entity(b.t, "user2-secret.asc")
	made := by.PrimaryKey.CreationTime.Add(24 * time.Hour) // the clock of a synctest stands before it
	config := &packet.Config{AEADConfig: &packet.AEADConfig{DefaultMode: packet.AEADModeOCB}, Time: func() time.Time { return made }}
	w, err := armor.Encode(&armored, "PGP MESSAGE", nil)
	must(b.t, err)
	plain, err := openpgp.Encrypt(w, []*openpgp.Entity{to}, nil, []*openpgp.Entity{by}, nil, config)
	must(b.t, err)
	_, err = plain.Write(inner.Bytes())
	must(b.t, errors.Join(err, plain.Close(), w.Close()))
	mail := fmt.Sprintf("From: <%s>\r\nTo: <%s>\r\nSubject: [...]\r\nMessage-ID: <%d@chat.test>\r\n"+
		"Content-Type: multipart/encrypted; protocol=\"application/pgp-encrypted\"; boundary=\"b\"\r\n\r\n"+
		"--b\r\nContent-Type: application/pgp-encrypted\r\n\r\nVersion: 1\r\n\r\n"+
		"--b\r\nContent-Type: application/octet-stream\r\n\r\n%s\r\n--b--\r\n", contact, a, uid, strings.ReplaceAll(armored.String(), "\n", "\r\n"))
	b.inboxes[a].mu.Lock()
	defer b.inboxes[a].mu.Unlock()
	b.inboxes[a].mails[uid] = []byte(mail)
}

func entity(t *testing.T, name string) *openpgp.Entity {
	t.Helper()
	ring, err := openpgp.ReadKeyRing(bytes.NewReader(dearmored(t, name)))
	must(t, err)
	return ring[0]
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (b *bench) stopped(a bot.Address) bool {
	b.t.Helper()
	stopped, err := b.ledger.StoppedAddresses(b.t.Context(), a, []bot.Address{contact})
	must(b.t, err)
	return len(stopped) > 0
}

// While a bot is paused, the host's words are heard, each once, and all else waits, without being fetched again and again; it is worked
// off after the pause.
func TestAPausedBotHearsTheHostsWords(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, one)
		b.say(one, 1, "hello")
		must(t, b.ledger.Pause(t.Context(), one, "junk"))
		b.say(one, 2, "/help")
		b.say(one, 3, "/start")
		b.put(one, 4, "abuse/abuse-01.eml") // cleartext
		b.say(one, 5, strings.Repeat("x", 2*maxWord))
		b.Wake(b.ctx, one, WakeInbox)
		if left := b.left(one); !slices.Equal(left, []uint32{1, 3, 4, 5}) || b.said(one) != 1 {
			t.Errorf("%v wait, said %d", left, b.said(one))
		}
		fetched := b.inboxes[one].fetched()
		if fetched > 4 {
			t.Errorf("%d were fetched, the large one too", fetched)
		}
		b.say(one, 6, "/stop")
		for range 3 {
			b.Wake(b.ctx, one, WakeInbox)
			b.left(one)
		}
		if left := b.left(one); !slices.Equal(left, []uint32{1, 3, 4, 5}) || b.said(one) != 2 || !b.stopped(one) || len(b.sessions.uids()) != 0 {
			t.Errorf("%v wait, said %d, stopped %v, sessions %v", left, b.said(one), b.stopped(one), b.sessions.uids())
		}
		if now := b.inboxes[one].fetched(); now != fetched+1 {
			t.Errorf("%d were fetched, then %d: want one more", fetched, now)
		}
		b.say(one, 7, "/start")
		b.Wake(b.ctx, one, WakeInbox)
		b.left(one)
		must(t, b.ledger.Resume(t.Context(), one))
		b.Wake(b.ctx, one, WakeInbox)
		if left := b.left(one); len(left) != 0 || !slices.Equal(b.sessions.uids(), []uint32{1, 3, 5}) || b.stopped(one) {
			t.Errorf("after the pause %v wait, sessions %v", left, b.sessions.uids())
		}
	})
}

// Over its own limit and the bot's, a contact still has the host's words, and a bot whose limit is reached is not started for them.
func TestWordsWaitForNoLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, one)
		b.opts.Limits = Limits{PerUser: bot.PerUser{MailsPerHour: 1, MailsPerDay: 9}, CPUPerHour: time.Second, MailsPerHour: 2}
		b.sessions.spend = func(session.Work) bot.RunRecord { return bot.RunRecord{Status: bot.RunOK, CPU: time.Second} }
		for i, text := range []string{"one", "two", "/usage", "/help", "/stop"} {
			b.say(one, uint32(i+1), text)
		}
		b.Wake(b.ctx, one, WakeInbox)
		if left := b.left(one); len(left) != 0 || !slices.Equal(b.sessions.uids(), []uint32{1}) || !b.stopped(one) {
			t.Errorf("%v wait, sessions %v, stopped %v", left, b.sessions.uids(), b.stopped(one))
		}
		if n := b.said(one); n != 3 {
			t.Errorf("said %d times, want three answers, and no notice for a limit of the bot's", n)
		}
		refused, err := b.ledger.Refusals(t.Context(), one)
		if err != nil || refused["stopped"] != 1 {
			t.Errorf("refused %v, %v: want the second, which waited", refused, err)
		}
	})
}

// A flood of commands is answered ten times, and its /stop holds; another contact has its own answers. After a while there is an answer again.
func TestAFloodOfCommands(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, one)
		for i := range uint32(30) {
			b.say(one, i+1, "/help")
		}
		b.say(one, 31, "/stop")
		b.Wake(b.ctx, one, WakeInbox)
		if left := b.left(one); len(left) != 0 || b.said(one) != wordsBurst || !b.stopped(one) {
			t.Errorf("%v wait, said %d, stopped %v", left, b.said(one), b.stopped(one))
		}
		time.Sleep(wordsEvery)
		b.say(one, 32, "/about")
		b.Wake(b.ctx, one, WakeInbox)
		if b.left(one); b.said(one) != wordsBurst+1 {
			t.Errorf("said %d", b.said(one))
		}
		refused, err := b.ledger.Refusals(t.Context(), one)
		if err != nil || refused["commands"] != 30-wordsBurst {
			t.Errorf("refused %v, %v", refused, err)
		}
		other := gate.Verdict{Sender: "ANOTHER", From: contact}
		a := &actor{}
		for range 2 * wordsBurst {
			other.Sender += "X" // keys are free to make
			a.mayAnswer(other)
		}
		if a.mayAnswer(other) || !a.mayAnswer(gate.Verdict{Sender: "A", From: "a@x"}) {
			t.Error("an address with many keys has more answers than others, or others have none")
		}
		for i := range 2 * allWordsBurst {
			a.mayAnswer(gate.Verdict{Sender: bot.Fingerprint(fmt.Sprint(i)), From: bot.Address(fmt.Sprintf("%d@x", i))})
		}
		if a.mayAnswer(gate.Verdict{Sender: "B", From: "b@x"}) {
			t.Error("all contacts together have no bound")
		}
	})
}

// A run that waits to be tried again is over when its contact says /stop, and the ledger says so.
func TestStopEndsWhatIsTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, one)
		b.opts.MaxAttempts = 5
		b.sessions.run = func(session.Work) error {
			return &session.Again{Record: bot.RunRecord{Status: bot.RunError, ExitCode: 75}}
		}
		b.say(one, 1, "hello")
		b.say(one, 2, "and more")
		b.Wake(b.ctx, one, WakeInbox)
		if left := b.left(one); !slices.Equal(left, []uint32{1, 2}) {
			t.Errorf("%v wait", left)
		}
		b.say(one, 3, "/stop")
		b.Wake(b.ctx, one, WakeInbox)
		if left := b.left(one); len(left) != 0 || len(b.sessions.uids()) != 1 {
			t.Errorf("%v wait, sessions %v", left, b.sessions.uids())
		}
		accepted, err := b.ledger.Jobs(t.Context(), one, ledger.JobAccepted)
		must(t, err)
		runs, err := b.ledger.Runs(t.Context(), one, 10)
		must(t, err)
		if len(accepted) != 0 || len(runs) != 2 || runs[0].Record.Message != "not tried again: the contact has stopped the bot" || runs[0].Committed {
			t.Errorf("accepted %v, runs %+v", accepted, runs)
		}
	})
}

// The /start of somebody who has stopped the bot is the host's; a bot whose commands have it gets it, too. Any other is the bot's.
func TestStartReachesABotThatHasIt(t *testing.T) {
	for _, declared := range []bool{false, true} {
		t.Run(fmt.Sprint(declared), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t, one)
				m := bot.Manifest{Name: "Dice"}
				if declared {
					m.Commands = []bot.Command{{Name: "start"}}
				}
				b.manifest(one, m)
				var message []bool
				b.sessions.run = func(w session.Work) error { message = append(message, w.Message); return nil }
				for i, text := range []string{"/start", "/stop", "/start", "/start"} {
					b.say(one, uint32(i+1), text)
				}
				b.Wake(b.ctx, one, WakeInbox)
				want := []uint32{1, 4}
				if declared {
					want = []uint32{1, 3, 4}
				}
				if left := b.left(one); len(left) != 0 || b.said(one) != 2 || b.stopped(one) || !slices.Equal(b.sessions.uids(), want) || slices.Contains(message, false) {
					t.Errorf("%v wait, said %d, sessions %v of %v", left, b.said(one), b.sessions.uids(), message)
				}
			})
		})
	}
}

func TestUsageAndHelpInWords(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, one)
		b.manifest(one, bot.Manifest{Name: "Dice", PerUser: bot.PerUser{MailsPerHour: 5}})
		b.opts.Limits = Limits{
			PerUser: bot.PerUser{MailsPerHour: 60, MailsPerDay: 120, SecondsPerHour: 60, BytesPerHour: 60e6}, CPUPerHour: 36 * time.Second, Sending: bot.Sending{Mails: 2000, MailsPerContact: 200},
		}
		b.sessions.spend = func(session.Work) bot.RunRecord {
			return bot.RunRecord{Status: bot.RunOK, Wall: 1500 * time.Millisecond, CPU: 36 * time.Second}
		}
		b.say(one, 1, "hello")
		b.Wake(b.ctx, one, WakeInbox)
		b.left(one)
		must(t, b.ledger.Pause(t.Context(), one, "junk"))
		a := b.newActor(one)
		installed, err := b.ledger.Bot(t.Context(), one)
		must(t, err)
		text, err := a.usageText(t.Context(), installed, gate.Verdict{Sender: "unknown", From: contact})
		must(t, err)
		for _, want := range []string{
			"1 of 5 messages in the last hour\n", "1 of 120 messages in the last 24 hours\n", "2 of 60 seconds of work in the last hour\n", " of 60 MB in the last hour\n",
			"What counts for the last hour is all free again at 01:00 UTC", "2000-01-02 00:00 UTC", "The bot itself may use: 36s of CPU time an hour, 2000 mails sent an hour.\n",
			"It has used all of its 36s of CPU time an hour, and goes on at 01:00 UTC.", "The operator has paused it, on 2000-01-01.",
		} {
			if !strings.Contains(text, want) {
				t.Errorf("%q is not in\n%s", want, text)
			}
		}
		text = helpText(bot.Manifest{Name: "Dice", Summary: "Rolls", Commands: []bot.Command{{Name: "roll", Description: "2d6"}, {Name: "bare"}}})
		if !strings.HasPrefix(text, "Dice\nRolls\n\n/roll – 2d6\n/bare\n/about – ") || !strings.Contains(text, "\n/usage – ") || !strings.Contains(text, "\n/stop – ") {
			t.Errorf("help:\n%s", text)
		}
	})
}
