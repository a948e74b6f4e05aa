package e2e

import (
	"slices"
	"strings"
	"testing"

	"mayfly/internal/core"
)

// In these bots' chats the verbs are for members of the group, by the names of their accounts.
const hostess = `export default { async message(msg, env) {
	const [verb, name] = msg.text.split(' ')
	if (!['/add', '/write'].includes(verb)) return 'heard ' + msg.text
	try {
		const contact = (await msg.chat.members()).find(c => c.address.startsWith(name))
		if (verb === '/write') {
			await env.rpc('misc_send_text_message', 1, await env.rpc('create_chat_by_contact_id', 1, contact.id), 'psst')
			return 'written to ' + name
		}
		const party = await env.rpc('create_group_chat', 1, 'Party', false)
		await env.rpc('add_contact_to_chat', 1, party, contact.id)
		await env.rpc('misc_send_text_message', 1, party, 'welcome')
		return 'added ' + name
	} catch (e) { return e.message }
} }`

// until skips what is said until a text comes. What the silent one says before it is an error.
func (p *person) until(text string, silent ...string) core.Message {
	p.w.t.Helper()
	for {
		m := p.hear()
		if m.Text == text {
			return m
		}
		if slices.Contains(silent, m.Sender.Address) && !m.IsInfo {
			p.w.t.Fatalf("%s said %q, before %q", m.Sender.Address, m.Text, text)
		}
	}
}

// A bot reaches all members of a group that somebody who has consented brought it into, but not who has stopped it. It adds to groups of its own, and
// writes to on its own, only who wrote to it directly and has not stopped it since.
func TestConsent(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	address, invite := w.start("consent01", script("Hostess", hostess).with("[groups]\nprivacy = false\n"))
	ada, bob := w.person("ada000041"), w.person("bob000041")
	chat := ada.join(invite)
	group := ada.group("Club", chat, ada.meet(bob))
	ask := func(text, want string) core.Message {
		t.Helper()
		ada.say(group, text)
		m := ada.hear()
		if !strings.Contains(m.Text, want) || m.ChatID != group {
			t.Fatalf("%s: heard %q in chat %d, want %q", text, m.Text, m.ChatID, want)
		}
		return m
	}
	const (
		notAdded   = "has not written to the bot directly, or has stopped it"
		notWritten = "nobody in it has written to the bot, or all have stopped it"
	)
	// Nobody has consented by writing in a group.
	ask("hello", "heard hello")
	in := bob.until("heard hello")
	if err := bob.Call(w.ctx, "accept_chat", nil, bob.Account, in.ChatID); err != nil {
		t.Fatal(err)
	}
	bob.say(in.ChatID, "from bob")
	ada.until("heard from bob")
	for _, add := range []string{"/add bob", "/add ada"} {
		bob.until(ask(add, notAdded).Text)
	}
	bob.until(ask("/write bob", notWritten).Text)

	bobs := bob.join(invite)
	bob.say(bobs, "hi")
	bob.until("heard hi")
	ask("/add bob", "added bob")
	ask("/write bob", "written to bob")
	for heard := map[string]bool{}; !heard["welcome"] || !heard["psst"] || !heard["added bob"] || !heard["written to bob"]; {
		heard[bob.hear().Text] = true
	}

	bob.say(bobs, "/stop")
	if m := bob.hear(); !strings.Contains(m.Text, "You have stopped Hostess.") {
		t.Errorf("/stop: %q", m.Text)
	}
	ask("/add bob", notAdded)
	ask("/write bob", notWritten)
	ask("goodbye", "heard goodbye")
	bob.say(bobs, "/start")
	bob.until("Hostess may write to you again.", string(address))
	ask("/write bob", "written to bob")
	bob.until("psst")
}
