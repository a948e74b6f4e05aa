package e2e

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp/armor"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
	openpgp "github.com/ProtonMail/go-crypto/openpgp/v2"

	"mayfly/internal/bot"
	"mayfly/internal/ledger"
)

// TestOddTextsInAGroup sends what could trip the search for commands. The host lives, and no run is made.
func TestOddTextsInAGroup(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	address, invite := w.start("slash0001", script("Hal", echo))
	ada := w.person("ada000101")
	group := ada.group("Crew", ada.join(invite))
	for _, text := range []string{"/", "/ ", "/\n", "/@", "@", "//", "/\u3000x", "@Hal"} {
		ada.say(group, text)
	}
	ada.expect("you said: @Hal")
	if n := w.runs(address); n != 1 {
		t.Errorf("%d runs, want that of the last", n)
	}
}

// TestBotsDoNotAnswerBots joins one bot to a group with another; a person's word wakes both, and neither wakes the other.
func TestBotsDoNotAnswerBots(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	chatty := func(name string) files {
		return script(name, `export default { message(msg) { return "`+name+` heard: " + msg.text } }`).with("[groups]\nprivacy = false\n")
	}
	hal, halClient := w.newAccount("hal000001")
	w.append(halClient, hal, chatty("Hal").with("[messages]\nfrom_bots = true\n")) // which this host does not grant
	eve, eveClient := w.newAccount("eve000001")
	w.append(eveClient, eve, chatty("Eve"))
	w.serve()
	ada := w.person("ada000102")
	group := ada.group("Crew", ada.join(w.installed(halClient)), ada.join(w.installed(eveClient)))
	ada.say(group, "hello")
	heard := []string{ada.hear().Text, ada.hear().Text}
	for _, text := range heard {
		if !strings.HasSuffix(text, " heard: hello") {
			t.Errorf("heard %q", text)
		}
	}
	w.awaitJobs(hal, 4) // two of the handshake, ada's word, eve's answer
	w.awaitJobs(eve, 4)
	if h, e := w.runs(hal), w.runs(eve); h != 1 || e != 1 {
		t.Errorf("%d and %d runs, want one each", h, e)
	}
	if answer := strings.ReplaceAll(w.status(halClient, 1), "=\r\n", ""); !strings.Contains(answer, "from_bots has no effect") {
		t.Errorf("the author was not told that bots wake nobody:\n%s", answer)
	}
}

// TestBotsAnswerBotsWhereGranted has a host whose operator allows it: who asks for messages of bots gets them, who does not, does not.
func TestBotsAnswerBotsWhereGranted(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.settings = strings.NewReplacer("[log]\n", "[bots]\nfrom_bots = true\n[log]\n")
	open := func(name, lines string) files {
		return script(name, `export default { message(msg) { return "`+name+` heard: " + msg.text } }`).with("[groups]\nprivacy = false\n" + lines)
	}
	hal, halClient := w.newAccount("hal000002")
	w.append(halClient, hal, open("Hal", "[messages]\nfrom_bots = true\n"))
	eve, eveClient := w.newAccount("eve000002")
	w.append(eveClient, eve, open("Eve", ""))
	w.serve()
	ada := w.person("ada000106")
	group := ada.group("Crew", ada.join(w.installed(halClient)), ada.join(w.installed(eveClient)))
	ada.say(group, "hello")
	heard := map[string]bool{}
	for range 3 {
		heard[ada.hear().Text] = true
	}
	if !heard["Hal heard: hello"] || !heard["Eve heard: hello"] || !heard["Hal heard: Eve heard: hello"] {
		t.Errorf("heard %v", heard)
	}
	w.awaitJobs(hal, 4)   // two of the handshake, ada's word, eve's answer
	over := func() bool { // eve's: two of the handshake, ada's word, hal's two answers, for some of which core decides, and the gate for the others
		jobs, err := w.ledger().Jobs(w.ctx, eve, ledger.JobCleared)
		return err == nil && len(jobs)+int(w.refusals(eve)["of a bot"]) >= 5
	}
	if err := w.poll(over); err != nil {
		t.Fatalf("%v\n%s", err, w.log)
	}
	if h, e := w.runs(hal), w.runs(eve); h != 2 || e != 1 {
		t.Errorf("%d and %d runs, want two and one", h, e)
	}
	if answer := w.status(halClient, 1); strings.Contains(answer, "no effect") {
		t.Errorf("the author was told:\n%s", answer)
	}
}

// TestTooLongALineEndsTheRunAtOnce sends a text over the line limit: a clear error, and not the wall clock.
func TestTooLongALineEndsTheRunAtOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	address, invite := w.start("longline1", script("Long", `export default { async message(msg) { await msg.reply("x".repeat(2e6)) } }`))
	ada := w.person("ada000103")
	ada.say(ada.join(invite), "a")
	w.awaitJobs(address, 3)
	if r := w.run(address).Record; r.Status != bot.RunError || !strings.Contains(r.Message, "a line is longer than") || r.Wall > 4*time.Second {
		t.Errorf("%s %q after %s, want RE with the limit, at once", r.Status, r.Message, r.Wall)
	}
}

// TestCoreDiesDuringARun kills core while the handler waits. That is not the bot's fault: the mail is answered all the same.
func TestCoreDiesDuringARun(t *testing.T) {
	w := newWorld(t)
	address, invite := w.start("coredies1", script("Slow", `export default { async message(msg) {
		await new Promise(r => setTimeout(r, 1500))
		return "reply to " + msg.text
	} }`))
	ada := w.person("ada000104")
	chat := ada.join(invite)
	after := w.log.offset()
	ada.say(chat, "one")
	w.await(after, "minirelay", "fetched")
	time.Sleep(500 * time.Millisecond) // the handler is in its wait
	w.killProcess(func(command string) bool { return command == "core " })
	ada.expect("reply to one")
	runs, err := w.ledger().Runs(w.ctx, address, 10)
	if err != nil || !slices.ContainsFunc(runs, func(r ledger.Run) bool { return !r.Committed && r.Record.CPU > 0 }) {
		t.Errorf("the CPU time of the run that did not count is not in %+v, %v", runs, err)
	}
	ada.say(chat, "two")
	ada.expect("reply to two")
}

// TestBrokerDies kills the broker: the host ends with an error, so that its supervisor starts it again, and no mail is lost.
func TestBrokerDies(t *testing.T) {
	w := newWorld(t)
	_, invite := w.start("nobroker1", script("Echo", echo))
	ada := w.person("ada000105")
	chat := ada.join(invite)
	w.killProcess(func(command string) bool { return strings.HasPrefix(command, "mayfly-sandbox broker") })
	err := w.command.Wait()
	w.command = nil
	if err == nil || !strings.Contains(w.log.String(), "the sandbox broker has ended") {
		t.Errorf("the host ended with %v, want an error that names the broker", err)
	}
	ada.say(chat, "one")
	w.serve()
	ada.expect("you said: one")
}

// killProcess kills the one process of ours whose command line fits: a test that calls it is not parallel.
func (w *world) killProcess(fits func(command string) bool) {
	w.t.Helper()
	ours, _ := family()
	killed := 0
	for _, p := range ours {
		pid, command, _ := strings.Cut(p, " ")
		if n, err := strconv.Atoi(pid); err == nil && fits(command) {
			if err := syscall.Kill(n, syscall.SIGKILL); err != nil {
				w.t.Fatal(err)
			}
			killed++
		}
	}
	if killed != 1 {
		w.t.Fatalf("killed %d processes, want one, of %q", killed, ours)
	}
}

// TestBombBesideMail sends a mail of 200 kB that unpacks to 36 MB, and one behind it that is answered.
func TestBombBesideMail(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	address, client := w.newAccount("bot000002")
	w.putKey(address, "bot2-secret.asc")
	w.append(client, address, script("Echo", echo))
	w.serve()
	w.installed(client)
	mx := w.listenMX()
	line := strings.Repeat("A", 76) + "\r\n"
	w.sendFromOutside(mx, address, encrypted(t, "Content-Type: text/plain\r\n\r\n"+strings.Repeat(line, (36<<20)/len(line))))
	w.sendFromOutside(mx, address, encrypted(t, "Content-Type: text/plain\r\n\r\nhello\r\n"))
	w.awaitVerdict(address, 1, map[string]int64{}, "too-large", "a bomb")
}

// encrypted makes a mail of the samples' user to the samples' bot.
func encrypted(t *testing.T, body string) []byte {
	t.Helper()
	user, botKey := sampleKey(t, "user2-secret.asc"), sampleKey(t, "bot2-public.asc")
	var public, out bytes.Buffer
	err := user.Serialize(&public)
	if err != nil {
		t.Fatal(err)
	}
	header := fmt.Sprintf("From: <user00002@chat.test>\r\nTo: <bot000002@chat.test>\r\nDate: %s\r\nMessage-ID: <%s@chat.test>\r\nSubject: hi\r\nChat-Version: 1.0\r\n",
		time.Now().Format(time.RFC1123Z), rand.Text())
	armored, err := armor.Encode(&out, "PGP MESSAGE", nil)
	if err != nil {
		t.Fatal(err)
	}
	config := &packet.Config{DefaultCompressionAlgo: packet.CompressionZLIB, CompressionConfig: &packet.CompressionConfig{Level: 9}}
	plain, err := openpgp.Encrypt(armored, []*openpgp.Entity{botKey}, nil, []*openpgp.Entity{user}, nil, config)
	if err != nil {
		t.Fatal(err)
	}
	autocrypt := "Autocrypt: addr=user00002@chat.test; prefer-encrypt=mutual; keydata=" + base64.StdEncoding.EncodeToString(public.Bytes()) + "\r\n"
	_, err = plain.Write([]byte(header + autocrypt + body))
	for _, close := range []func() error{plain.Close, armored.Close} {
		if err == nil {
			err = close()
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	return []byte(header + "MIME-Version: 1.0\r\nContent-Type: multipart/encrypted; protocol=\"application/pgp-encrypted\"; boundary=\"bb\"\r\n\r\n" +
		"--bb\r\nContent-Type: application/pgp-encrypted\r\n\r\nVersion: 1\r\n\r\n" +
		"--bb\r\nContent-Type: application/octet-stream; name=encrypted.asc\r\n\r\n" + strings.ReplaceAll(out.String(), "\n", "\r\n") + "\r\n--bb--\r\n")
}

func sampleKey(t *testing.T, name string) *openpgp.Entity {
	t.Helper()
	ring, err := openpgp.ReadArmoredKeyRing(bytes.NewReader(readAll(t, "../../internal/gate/testdata/"+name)))
	if err != nil {
		t.Fatal(err)
	}
	return ring[0]
}

// checkState requires that the disk holds what the ledger names and nothing else: one generation of each kind for a bot, and no
// body in the outbox that waits for nobody.
func (w *world) checkState() {
	w.t.Helper()
	for _, pattern := range []string{"bots/*/account", "bots/*/folder"} {
		for _, dir := range glob(filepath.Join(w.dir, "state", pattern)) {
			if found := glob(dir + "/*"); len(found) > 1 {
				w.t.Errorf("more than one generation: %q", found)
			}
		}
	}
	ctx := context.Background() // the test's own has ended
	l, err := ledger.Open(ctx, filepath.Join(w.dir, "state", "ledger.db"))
	if err != nil {
		w.t.Error(err)
		return
	}
	defer l.Close()
	waiting, err := l.OutboxPaths(ctx)
	if bodies := glob(filepath.Join(w.dir, "state", "outbox", "*")); err != nil || len(bodies) != len(waiting) {
		w.t.Errorf("the outbox holds %q, the ledger names %q, %v", bodies, waiting, err)
	}
}
