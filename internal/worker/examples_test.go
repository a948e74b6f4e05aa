package worker

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// example runs a message through one of the bots in examples/.
func example(t *testing.T, name, text string) *host {
	t.Helper()
	h := newHost(t, "", text)
	h.opts.Bundle = filepath.Join("../../examples", name)
	return h
}

func reply(t *testing.T, h *host) string {
	t.Helper()
	h.run().wantOK()
	if len(h.calls) != 1 || h.calls[0].Method != "send_msg" {
		t.Fatalf("calls: %v", h.calls)
	}
	text, _ := h.calls[0].Params[2].(map[string]any)["text"].(string)
	return text
}

func TestExamplesCheck(t *testing.T) {
	for _, name := range []string{"dice", "echo", "notes", "reminder"} {
		h := example(t, name, "")
		h.job = map[string]any{"event": "check", "main": "main.js"}
		h.run().wantOK()
	}
}

func TestDice(t *testing.T) {
	tests := []struct{ text, want string }{
		{"2d6", `^🎲 [1-6] \+ [1-6] = ([2-9]|1[0-2])$`},
		{" /roll 2D6 ", `^🎲 [1-6] \+ [1-6] = ([2-9]|1[0-2])$`},
		{"d20", `^🎲 ([1-9]|1[0-9]|20)$`},
		{"/roll", `^🎲 [1-6]$`},
		{"d2+10", `^🎲 [12] \+ 10 = 1[12]$`},
		{"d2 − 1", `^🎲 [12] − 1 = [01]$`},
		{"/help", `^I roll dice\.`},
		{"hello", `^I don't know how to roll “hello”\. Try 2d6`},
		{"101d6", `^I have 1 to 100 dice, not 101\.$`},
		{"0d6", `^I have 1 to 100 dice, not 0\.$`},
		{"1d1", `^My dice have 2 to 1000 sides, not 1\.$`},
	}
	for _, tt := range tests {
		if got := reply(t, example(t, "dice", tt.text)); !regexp.MustCompile(tt.want).MatchString(got) {
			t.Errorf("%q: %q, want %s", tt.text, got, tt.want)
		}
	}
}

// Every face comes up: 100 dice of two sides miss one with a probability of 2^-99.
func TestDiceHaveAllFaces(t *testing.T) {
	got := reply(t, example(t, "dice", "100d2"))
	if strings.Count(got, "1") == 0 || strings.Count(got, "2") == 0 || strings.Count(got, "+") != 99 {
		t.Error(got)
	}
}

func TestEcho(t *testing.T) {
	if got := reply(t, example(t, "echo", "hi there")); got != "hi there" {
		t.Error(got)
	}
	h := example(t, "echo", "look")
	if err := os.WriteFile(filepath.Join(h.opts.Attachments, "cat.png"), []byte("\x89PNG\x00"), 0o600); err != nil {
		t.Fatal(err)
	}
	h.job["attachment"] = map[string]any{"path": "/attachments/cat.png", "name": "cat.png", "mime": "image/png", "size": 5}
	if got := reply(t, h); got != "look" {
		t.Error(got)
	}
	data := h.calls[0].Params[2].(map[string]any)
	content, err := os.ReadFile(data["file"].(string))
	if err != nil || string(content) != "\x89PNG\x00" || data["viewtype"] != "Image" || data["filename"] != "cat.png" {
		t.Errorf("%v %q %v", data, content, err)
	}
}

// The notes are in the durable folder: each message is a run of its own.
func TestNotes(t *testing.T) {
	storage := t.TempDir()
	say := func(chat int, text string) string {
		h := example(t, "notes", text)
		h.opts.Storage = storage
		h.job["chat"] = map[string]any{"id": chat, "name": "", "chatType": "Group"}
		return reply(t, h)
	}
	tests := []struct {
		chat       int
		text, want string
	}{
		{10, "hello", "I keep notes for this chat:\n/add buy milk – keeps a note\n/list – shows all\n/done 2 – removes the second"},
		{10, "/list", "There are no notes yet. Write /add and then the note."},
		{10, "/add", "What shall I note? Write /add and then the note."},
		{10, "/add milk", "Noted as number 1."},
		{10, "/add two\nlines", "Noted as number 2."},
		{11, "/list", "There are no notes yet. Write /add and then the note."},
		{10, "/done 3", "There is no such note. 1. milk\n2. two\nlines"},
		{10, "/done 1", "Removed: milk"},
		{10, "/list", "1. two\nlines"},
	}
	for _, tt := range tests {
		if got := say(tt.chat, tt.text); got != tt.want {
			t.Errorf("%d %q: %q, want %q", tt.chat, tt.text, got, tt.want)
		}
	}
}

// A reminder comes when its time is past, once, and in the chat where it was wanted.
func TestReminder(t *testing.T) {
	storage := t.TempDir()
	run := func(chat int, text string) *host {
		h := example(t, "reminder", text)
		h.opts.Storage = storage
		h.job["chat"] = map[string]any{"id": chat, "name": "", "chatType": "Group"}
		return h
	}
	for _, tt := range []struct{ text, want string }{
		{"hello", `^I remind this chat`},
		{"/remind 3h", `^When shall I remind you`},
		{"/remind soon buy milk", `^When shall I remind you`},
		{"/remind 2000-01-01 buy milk", `^That is not in the next ten years`},
		{"/remind 0h buy milk", `^That is not in the next ten years`},
		{"/remind 2d buy milk", `^I shall remind you at the first full hour after 20..-..-.. ..:.. UTC\.$`},
		{"/remind 9999-01-01 buy milk", `^That is not in the next ten years`},
		{"/list", `^1\. 20..-..-.. ..:.. UTC: buy milk$`},
		{"/forget 2", `^There is no such reminder\. 1\. `},
	} {
		if got := reply(t, run(10, tt.text)); !regexp.MustCompile(tt.want).MatchString(got) {
			t.Errorf("%q: %q, want %s", tt.text, got, tt.want)
		}
	}
	if got := reply(t, run(11, "/list")); got != "There is nothing to come." {
		t.Errorf("in another chat: %q", got)
	}
	tick := func(want ...string) {
		t.Helper()
		h := run(0, "")
		h.job["event"], h.job["schedule"] = "scheduled", map[string]any{"cron": "0 * * * *", "scheduledTime": 0, "lastRun": nil}
		h.run().wantOK().wantCalls(want...)
	}
	tick()
	past := storedAs(t, storage, "buy milk")
	if err := os.Rename(past, regexp.MustCompile(`due\+20..`).ReplaceAllString(past, "due+2001")); err != nil {
		t.Fatal(err)
	}
	tick(`send_msg[1,10,{"text":"⏰ buy milk"}]`)
	tick()
}

// storedAs is the file of the one value that is kept.
func storedAs(t *testing.T, storage, value string) string {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(storage, "*"))
	if err != nil || len(paths) != 1 {
		t.Fatalf("stored are %v, %v", paths, err)
	}
	if text, err := os.ReadFile(paths[0]); err != nil || string(text) != value {
		t.Fatalf("%s has %q, %v", paths[0], text, err)
	}
	return paths[0]
}
