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
