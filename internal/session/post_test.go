package session

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"mayfly/internal/bot"
	"mayfly/internal/core"
	"mayfly/internal/gateway"
	"mayfly/internal/letter"
	"mayfly/internal/minirelay"
)

// village is a core that knows ada, who has written in chat 12, bob, who has written before, in chat 13, and eve, who has stopped the bot,
// in chat 14; chat 20 is a group with ada in it, and chat 21 one with nobody who has consented.
type village struct {
	sent  []string // messages, with their chats
	files map[string]string
}

func (v *village) Raw(_ context.Context, method string, params json.RawMessage) (json.RawMessage, error) {
	var args []json.RawMessage
	if err := json.Unmarshal(params, &args); err != nil {
		return nil, err
	}
	arg := func() string { return strings.Trim(string(args[1]), `"`) }
	answers := map[string]map[string]string{
		"lookup_contact_id_by_addr": {"ada@chat.test": "102", "bob@chat.test": "103", "eve@chat.test": "104", "mallory@chat.test": "105"},
		"get_chat_id_by_contact_id": {"102": "12", "103": "13", "104": "14"},
		"get_full_chat_by_id": {
			"13": `{"chatType": "Single", "isEncrypted": true, "contactIds": [103]}`,
			"14": `{"chatType": "Single", "isEncrypted": true, "contactIds": [104]}`,
			"20": `{"chatType": "Group", "isEncrypted": true, "selfInGroup": true, "contactIds": [1, 102]}`,
			"21": `{"chatType": "Group", "isEncrypted": true, "selfInGroup": true, "contactIds": [1, 104]}`,
		},
		"get_contact_encryption_info": {"102": fingerprintText("A"), "103": fingerprintText("B"), "104": fingerprintText("E")},
	}
	if method == "send_msg" {
		v.sent = append(v.sent, fmt.Sprintf("%s %s", args[1], args[2]))
		return json.RawMessage(fmt.Sprint(100 + len(v.sent))), nil
	}
	if a, ok := answers[method][arg()]; ok {
		return json.RawMessage(a), nil
	}
	if method == "get_full_chat_by_id" {
		return nil, errors.New("no such chat")
	}
	return json.RawMessage("null"), nil
}

// fingerprintText is core's text on the encryption of a contact whose fingerprint is that digit, forty times.
func fingerprintText(digit string) string {
	text, _ := json.Marshal("Fingerprints:\n\n" + strings.TrimSpace(strings.Repeat(strings.Repeat(digit, 4)+" ", 10)))
	return string(text)
}

func (v *village) Done() <-chan struct{} { return nil }

func (v *village) Consents(_ context.Context, fingerprint string) (bool, error) {
	return strings.HasPrefix(fingerprint, "A") || strings.HasPrefix(fingerprint, "B"), nil
}

func (v *village) PutFile(name string, _ int64, r io.Reader) error {
	data, err := io.ReadAll(r)
	v.files[name] = string(data)
	return err
}

// newPost is that of a run for a message of ada's.
func newPost(t *testing.T) (*post, *village) {
	v := &village{files: map[string]string{}}
	files := &filed{core: v}
	limits := gateway.DefaultLimits()
	limits.Sends = 6
	g := gateway.New(gateway.Options{Core: v, Files: files, Account: 7, Chats: []uint32{12}, CorePaths: "/account/x/", Limits: limits, Consent: v,
		Fingerprint: strings.Repeat("C", 40)})
	return &post{
		ctx: t.Context(), g: g, files: files, limits: letter.DefaultLimits(), chat: single, sender: ada, chats: map[bot.Address]uint32{},
		occasion: occasion{id: "q@x", msg: core.Message{ID: 55, ChatID: 12, FromID: 102}},
	}, v
}

// TestRecipients: whom a bot may write to, and what it reads of those whom it may not.
func TestRecipients(t *testing.T) {
	s, _ := newPost(t)
	for _, test := range []struct {
		to   bot.Address
		want string // "" where it may
	}{
		{"ada@chat.test", ""},
		{"bob@chat.test", ""},
		{"chat-12@mayfly.invalid", ""},
		{"chat-20@mayfly.invalid", ""},
		{"chat-21@mayfly.invalid", "550 [5 7 1] chat 21 is not the one that woke the bot"},
		{"chat-99@mayfly.invalid", "550 [5 1 1] get_full_chat_by_id: no such chat"},
		{"chat-1@mayfly.invalid", "550 [5 7 1] chat 1 is not"},
		{"chat-x@mayfly.invalid", "550 [5 1 1] No chat has this address"},
		{"eve@chat.test", "550 [5 7 1] chat 14 is not the one that woke the bot"},
		{"mallory@chat.test", "550 [5 7 1] mallory@chat.test has not written to the bot"},
		{"nobody@chat.test", "550 [5 7 1] nobody@chat.test has not written to the bot"},
	} {
		for range 2 { // what is known is known
			err := s.Recipient(test.to)
			var r *minirelay.Refusal
			got := ""
			if errors.As(err, &r) {
				got = fmt.Sprint(r.Code, " ", r.Enhanced, " ", r.Reason)
			}
			if !strings.HasPrefix(got, test.want) || (err == nil) != (test.want == "") {
				t.Errorf("%s: %s (%v), want %s", test.to, got, err, test.want)
			}
		}
	}
}

// TestSubmit: what becomes of a mail, in each chat once.
func TestSubmit(t *testing.T) {
	s, v := newPost(t)
	submit := func(mail string, to ...bot.Address) error {
		for _, address := range to {
			if err := s.Recipient(address); err != nil {
				t.Fatal(err)
			}
		}
		v.sent = nil
		return s.Submit(minirelay.Outgoing{To: to, Data: []byte(strings.ReplaceAll(mail, "\n", "\r\n"))})
	}
	want := func(err error, sent ...string) {
		t.Helper()
		if err != nil || !slices.Equal(v.sent, sent) {
			t.Errorf("sent %q, %v, want %q", v.sent, err, sent)
		}
	}
	want(submit("Subject: Re: x\nIn-Reply-To: <q@x>\n\nyes\n", "ada@chat.test", "chat-12@mayfly.invalid", "bob@chat.test"),
		`12 {"text":"yes","html":null,"viewtype":null,"file":null,"filename":null,"quotedMessageId":55,"quotedText":null}`,
		`13 {"text":"yes","html":null,"viewtype":null,"file":null,"filename":null,"quotedMessageId":null,"quotedText":null}`)
	want(submit("Content-Type: multipart/mixed; boundary=b\n\n--b\n\nsee\n--b\nContent-Type: image/png; name=a.png\n\nAA\n--b\nContent-Type: image/png; name=b.png\n\nBB\n--b--\n",
		"bob@chat.test"),
		`13 {"text":"see","html":null,"viewtype":null,"file":"/files/1","filename":"a.png","quotedMessageId":null,"quotedText":null}`,
		`13 {"text":null,"html":null,"viewtype":null,"file":"/files/2","filename":"b.png","quotedMessageId":null,"quotedText":null}`)
	if v.files["/files/1"] != "AA" || v.files["/files/2"] != "BB" || s.files.files != nil {
		t.Errorf("files %q, and kept %q", v.files, s.files.files)
	}
	for mail, want := range map[string]string{
		"no mail":       "554 [5 6 0] the mail cannot be read",
		"Subject: \n\n": "554 [5 6 0] the mail is empty",
		"X: y\n\n" + strings.Repeat("x", 100_001): "552 [5 3 4] the mail is too much",
	} {
		var r *minirelay.Refusal
		if err := submit(mail, "ada@chat.test"); !errors.As(err, &r) || !strings.HasPrefix(fmt.Sprint(r.Code, " ", r.Enhanced, " ", r.Reason), want) || len(v.sent) > 0 {
			t.Errorf("%.20q: %v, want %s", mail, err, want)
		}
	}
	var r *minirelay.Refusal
	if err := submit("X: y\n\nagain\n", "ada@chat.test", "bob@chat.test", "chat-20@mayfly.invalid"); !errors.As(err, &r) || r.Code != 552 ||
		!strings.Contains(r.Reason, "more than 6 messages in one run (2 of 3 messages were sent)") {
		t.Errorf("over a limit of the run: %v", err)
	}
}
