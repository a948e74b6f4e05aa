package e2e

import (
	"bytes"
	"image"
	"image/color"
	"image/draw"
	"image/png"
	"os"
	"strings"
	"testing"

	"mayfly/internal/core"
	"mayfly/internal/ledger"
)

// icon is a picture of one colour.
func icon(t *testing.T, c color.Color) string {
	t.Helper()
	m := image.NewRGBA(image.Rect(0, 0, 64, 64))
	draw.Draw(m, m.Bounds(), image.NewUniform(c), image.Point{}, draw.Src)
	var b bytes.Buffer
	if err := png.Encode(&b, m); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// profile waits until the person's app has something of a contact.
func (p *person) profile(chat core.ChatID, want func(core.Contact) bool) core.Contact {
	p.w.t.Helper()
	full, err := p.FullChat(p.w.ctx, p.Account, chat)
	if err != nil {
		p.w.t.Fatal(err)
	}
	var c core.Contact
	err = p.w.poll(func() bool {
		if c, err = p.Contact(p.w.ctx, p.Account, full.ContactIDs[0]); err != nil {
			p.w.t.Fatal(err)
		}
		return want(c)
	})
	if err != nil {
		p.w.t.Fatalf("the profile is still %+v", c)
	}
	return c
}

// colour is what a picture has in its middle: core recodes it.
func colour(t *testing.T, path string) string {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	m, err := png.Decode(f)
	if err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	r, g, b, _ := m.At(m.Bounds().Dx()/2, m.Bounds().Dy()/2).RGBA()
	switch max(r, g, b) {
	case r:
		return "red"
	case g:
		return "green"
	}
	return "blue"
}

// TestProfile shows a bot's manifest in its user's app, and what stays of what the bot has set itself.
func TestProfile(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	address, client := w.newAccount("profile01")
	source := `export default { async message(msg, env, ctx) {
		if (msg.text === "status") await env.rpc("set_config", 1, "selfstatus", "my own")
		return "heard " + msg.text
	} }`
	bundle := func(name, summary, picture string) files {
		f := script(name, source).with("")
		f["bot.toml"] = "icon = \"icon.png\"\n" + strings.Replace(f["bot.toml"], "made for a test", summary, 1)
		f["icon.png"] = picture
		return f
	}
	red, blue := icon(t, color.RGBA{200, 0, 0, 255}), icon(t, color.RGBA{0, 0, 200, 255})
	w.append(client, address, bundle("Red", "is red", red))
	w.serve()
	ada := w.person("ada000031")
	chat := ada.join(w.installed(client))
	say := func(text string) {
		ada.say(chat, text)
		ada.expect("heard " + text)
	}
	say("one")
	c := ada.profile(chat, func(c core.Contact) bool {
		return c.DisplayName == "Red" && c.Status == "is red" && c.ProfileImage != ""
	})
	if got := colour(t, c.ProfileImage); got != "red" {
		t.Errorf("the icon is %s", got)
	}

	say("status")
	ada.profile(chat, func(c core.Contact) bool { return c.Status == "my own" })
	before := c.ProfileImage
	w.append(client, address, bundle("Blue", "is red", blue))
	w.status(client, 2)
	say("two")
	c = ada.profile(chat, func(c core.Contact) bool {
		return c.DisplayName == "Blue" && c.ProfileImage != before && c.ProfileImage != ""
	})
	if got := colour(t, c.ProfileImage); got != "blue" || c.Status != "my own" {
		t.Errorf("the icon is %s, the status %q: the manifest's summary has not changed", got, c.Status)
	}

	without := script("Blue", source)
	without["bot.toml"] = strings.Replace(without["bot.toml"], "made for a test", "is gone", 1)
	w.append(client, address, without)
	w.status(client, 3)
	say("three")
	ada.profile(chat, func(c core.Contact) bool { return c.Status == "is gone" && c.ProfileImage == "" })
}

// sorry waits for the host's sentence about a run that failed.
func (p *person) sorry() core.Message {
	p.w.t.Helper()
	m := p.hear()
	if !strings.HasPrefix(m.Text, "Sorry, this bot ") || !m.IsBot && m.Sender.DisplayName == "" {
		p.w.t.Fatalf("heard %q, want the host's sentence: %+v", m.Text, m)
	}
	return m
}

// grumble fails on every message but "fine".
const grumble = `export default { message(msg) {
	if (msg.text.includes("fine")) return "fine"
	throw new Error("no luck")
} }`

// TestFailedRunIsToldOnce: the person who wrote hears of it, in private and once an hour; the author reads the line of the error in
// Bot/Status, and in the chat, if the manifest's contact has one with the bot.
func TestFailedRunIsToldOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	author := w.person("author033")
	address, client := w.newAccount("grumble01")
	f := script("Grumble", grumble)
	f["bot.toml"] = strings.Replace(f["bot.toml"], "mailto:author@example.org", "mailto:author033@"+domain, 1)
	w.append(client, address, f)
	w.serve()
	invite := w.installed(client)
	author.say(author.join(invite), "fine")
	author.expect("fine")

	ada := w.person("ada000033")
	chat := ada.join(invite)
	ada.say(chat, "luck")
	if m := ada.sorry(); m.ChatID != chat {
		t.Errorf("told in chat %d, want %d", m.ChatID, chat)
	}
	ada.say(chat, "luck")
	ada.say(chat, "fine")
	ada.expect("fine") // the second failure is not told
	if m := author.hear(); !strings.Contains(m.Text, "main.js:3:") || !strings.Contains(m.Text, "no luck") {
		t.Errorf("the author heard %q", m.Text)
	}
	if mail := w.status(client, 2); !strings.Contains(mail, "Mayfly-State: failed") || !strings.Contains(mail, "main.js:3:") {
		t.Errorf("the author reads\n%s", mail)
	}
	if failures, told, err := w.ledger().Failures(w.ctx, address); err != nil || len(failures) != 1 || failures[0].Count != 1 || told.IsZero() {
		t.Errorf("the second waits for the digest of the next hour: %+v %v %v", failures, told, err)
	}
}

// TestFailedRunInAGroup: the group hears nothing. Who wrote there is told in private, after having written to the bot directly before.
func TestFailedRunInAGroup(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	f := script("Grumble", grumble).with("[groups]\nprivacy = false\n")
	_, invite := w.start("grumble02", f)
	ada, bob := w.person("ada000034"), w.person("bob000034")
	direct := ada.join(invite)
	friends := ada.meet(bob)
	group := ada.group("friends", direct, friends)
	ada.say(group, "luck")
	bob.hear() // ada, in the group
	w.await(0, "the bot failed")
	ada.say(group, "fine")
	if m := ada.expect("fine"); m.ChatID != group { // and no private word
		t.Errorf("answered in chat %d, want the group %d", m.ChatID, group)
	}
	ada.say(direct, "fine")
	ada.expect("fine")
	ada.say(group, "luck again")
	if m := ada.sorry(); m.ChatID != direct {
		t.Errorf("told in chat %d, want the direct one, %d", m.ChatID, direct)
	}
	for _, want := range []string{"fine", "fine", "luck again"} {
		if m := bob.hear(); m.Text != want {
			t.Errorf("bob heard %q, want %q", m.Text, want)
		}
	}
}

// TestAuthorByInvite: the bot accepts the invite link that is its manifest's contact, once, and so can tell its author by chat what has
// failed, though the author has never written.
func TestAuthorByInvite(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	author, ada := w.person("author035"), w.person("ada000035")
	link, err := author.Invite(w.ctx, author.Account)
	if err != nil {
		t.Fatal(err)
	}
	address, client := w.newAccount("grumble03")
	bundle := func(more string) files {
		f := script("Grumble", grumble+more)
		f["bot.toml"] = strings.Replace(f["bot.toml"], "mailto:author@example.org", link, 1)
		return f
	}
	w.append(client, address, bundle(""))
	w.serve()
	invite := w.installed(client)
	w.awaitJobs(address, 2) // the author's two answers
	w.append(client, address, bundle("// another version"))
	w.status(client, 2)
	chat := ada.join(invite)
	ada.say(chat, "luck")
	ada.sorry()
	if m := author.hear(); !strings.Contains(m.Text, "main.js:3:") || !strings.Contains(m.Text, "/stop") {
		t.Errorf("the author heard %q", m.Text)
	}
	jobs, err := w.ledger().Jobs(w.ctx, address, ledger.JobCleared)
	if err != nil || len(jobs) != 5 {
		t.Errorf("%d jobs, %v: want two of the author's, two of the user's handshake and a message", len(jobs), err)
	}
}
