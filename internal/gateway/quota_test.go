package gateway

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// purse is a Quota of so many messages to each.
type purse struct {
	mu     sync.Mutex
	most   int
	bytes  int64
	took   map[string]int
	missed map[string]int
}

func (p *purse) Take(_ context.Context, to []string, messages int, bytes int64) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, a := range to {
		if p.took[a]+messages > p.most {
			return &Over{"two an hour", time.Date(2026, 1, 1, 10, 0, 1, 0, time.UTC)}
		}
	}
	for _, a := range to {
		p.took[a] += messages
	}
	p.bytes += bytes
	return nil
}

func (p *purse) Missed(limit string, messages int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.missed[limit] += messages
}

// one sends its lines one after the other.
func oneByOne(o *Options) { o.Limits.InFlight = 1 }

func sendTo(chat int) string {
	return fmt.Sprintf(`{"id":1,"method":"send_msg","params":[7,%d,{"text":"hi"}]}`, chat)
}

// Every call that sends is taken from what each member of its chat may get, and refused, with the limit and its end, where there is no room.
func TestSendsAreTakenFromTheQuota(t *testing.T) {
	answers := map[string]string{
		"get_full_chat_by_id": `{"chatType":"Group","isEncrypted":true,"selfInGroup":true,"contactIds":[1,10,11]}`,
		"get_contacts_by_ids": `{"10":{"address":"ada@x"},"11":{"address":"bob@x"}}`,
		"get_message":         `{"chatId":12}`,
	}
	for call, messages := range map[string]int{
		sendTo(12): 1,
		`{"id":1,"method":"misc_send_text_message","params":[7,12,"hi"]}`:                                  1,
		`{"id":1,"method":"misc_send_msg","params":[7,12,"hi",null,null,null,null]}`:                       1,
		`{"id":1,"method":"misc_send_draft","params":[7,12]}`:                                              1,
		`{"id":1,"method":"send_reaction","params":[7,5,["x"]]}`:                                           1,
		`{"id":1,"method":"send_edit_request","params":[7,5,"x"]}`:                                         1,
		`{"id":1,"method":"resend_messages","params":[7,[5,6]]}`:                                           2,
		`{"id":1,"method":"forward_messages","params":[7,[5,6],12]}`:                                       2,
		`{"id":1,"method":"delete_messages_for_all","params":[7,[5]]}`:                                     1,
		`{"id":1,"method":"send_webxdc_status_update","params":[7,5,"{}",""]}`:                             1,
		`{"id":1,"method":"set_chat_name","params":[7,12,"x"]}`:                                            1,
		`{"id":1,"method":"set_chat_ephemeral_timer","params":[7,12,60]}`:                                  1,
		`{"id":1,"method":"send_sticker","params":[7,12,"/tmp/out/a.png"]}`:                                1,
		`{"id":1,"method":"send_msg","params":[7,12,{"file":"/tmp/out/a.png"}]}`:                           1,
		`{"id":1,"method":"get_message","params":[7,5]}`:                                                   0,
		`{"id":1,"method":"misc_set_draft","params":[7,12,"x",null,null,null,null]}`:                       0,
		`{"id":1,"method":"create_group_chat","params":[7,"x",false]}`:                                     0, // nobody is in it yet
		`{"id":1,"method":"set_config","params":[7,"displayname","x"]}`:                                    0, // told with the next message
		`{"id":1,"method":"send_msg","params":[7,12,{"text":"` + strings.Repeat("x", largeFile/2) + `"}]}`: 1,
	} {
		p := &purse{most: 2, took: map[string]int{}, missed: map[string]int{}}
		core := &recorder{answers: answers}
		if _, err := exchange(t, core, func(o *Options) { o.Quota = p; oneByOne(o) }, call); err != nil {
			t.Fatal(err)
		}
		if p.took["ada@x"] != messages || p.took["bob@x"] != messages {
			t.Errorf("%.100s took %v, want %d each", call, p.took, messages)
		}
		full := &purse{took: map[string]int{}, missed: map[string]int{}}
		core = &recorder{answers: answers}
		got, err := exchange(t, core, func(o *Options) { o.Quota = full }, call)
		if err != nil {
			t.Fatal(err)
		}
		method, _, _ := strings.Cut(strings.TrimPrefix(call, `{"id":1,"method":"`), `"`)
		refused := strings.Contains(got[0], `"code":-32002,"message":"`+method+`: the limit of two an hour is reached: try again after 2026-01-01 10:01 UTC"`)
		reached := slices.ContainsFunc(core.reached(), func(c string) bool { return strings.HasPrefix(c, method+"[") })
		if messages > 0 && (!refused || reached || full.missed["two an hour"] != 1) || messages == 0 && refused {
			t.Errorf("%.100s with nothing left: %s, reached core: %v, missed %v", call, got[0], reached, full.missed)
		}
	}
}

// Members are asked for once, and anew when the bot has changed them. What is refused for the quota does not count in the run.
func TestMembersAreAskedForOnce(t *testing.T) {
	core := &recorder{answers: map[string]string{
		"get_full_chat_by_id":         `{"chatType":"Group","isEncrypted":true,"selfInGroup":true,"contactIds":[10]}`,
		"get_contacts_by_ids":         `{"10":{"address":"ada@x"}}`,
		"get_contact_encryption_info": `"0123 4567 89AB CDEF 0123 4567 89AB CDEF 0123 4567"`,
	}}
	p := &purse{most: 4, took: map[string]int{}, missed: map[string]int{}}
	add := `{"id":1,"method":"add_contact_to_chat","params":[7,12,10]}`
	lines := []string{sendTo(12), sendTo(12), add, sendTo(12), sendTo(12), sendTo(12), sendTo(12)}
	got, err := exchange(t, core, func(o *Options) {
		o.Quota, o.Consent, o.Limits.Sends = p, everybody{}, 5
		oneByOne(o)
	}, lines...)
	if err != nil {
		t.Fatal(err)
	}
	asked := 0
	for _, c := range core.reached() {
		if strings.HasPrefix(c, "get_full_chat_by_id") {
			asked++
		}
	}
	if asked != 2 || p.took["ada@x"] != 4 || p.missed["two an hour"] != 3 || strings.Contains(strings.Join(got, ""), "in one run") {
		t.Errorf("asked %d times, took %v, missed %v:\n%s", asked, p.took, p.missed, strings.Join(got, "\n"))
	}
}

type everybody struct{}

func (everybody) Consents(context.Context, string) (bool, error) { return true, nil }

// A bound of the run is told to the quota, too; and where core cannot say who is in a chat, nothing is sent.
func TestRefusedSendsAreTold(t *testing.T) {
	p := &purse{most: 9, took: map[string]int{}, missed: map[string]int{}}
	core := &recorder{answers: map[string]string{"get_full_chat_by_id": `{"contactIds":[10]}`, "get_contacts_by_ids": `{"10":{"address":"ada@x"}}`}}
	if _, err := exchange(t, core, func(o *Options) { o.Quota, o.Limits.Sends = p, 1; oneByOne(o) }, sendTo(12), sendTo(12), sendTo(12)); err != nil {
		t.Fatal(err)
	}
	if p.missed["1 messages in one run"] != 2 || p.bytes < wrapping {
		t.Errorf("missed %v, bytes %d", p.missed, p.bytes)
	}
	for method, answer := range map[string]string{"get_full_chat_by_id": "error: away", "get_contacts_by_ids": "[]"} {
		answers := map[string]string{"get_full_chat_by_id": `{"contactIds":[10]}`, method: answer}
		core := &recorder{answers: answers}
		got, err := exchange(t, core, func(o *Options) { o.Quota = p }, sendTo(12))
		if err != nil || !strings.Contains(got[0], `"error"`) || strings.Contains(strings.Join(core.reached(), "\n"), "send_msg") {
			t.Errorf("%s: %v %v", method, got, err)
		}
	}
}

// The bound of an attachment holds for every file that a bot names.
func TestEveryFileHasTheBoundOfAttachments(t *testing.T) {
	for _, call := range []string{
		`{"id":1,"method":"send_msg","params":[7,12,{"file":"/tmp/out/a.png"}]}`,
		`{"id":1,"method":"send_sticker","params":[7,12,"/tmp/out/a.png"]}`,
		`{"id":1,"method":"misc_set_draft","params":[7,12,"x","/tmp/out/a.png",null,null,null]}`,
		`{"id":1,"method":"set_chat_profile_image","params":[7,12,"/tmp/out/a.png"]}`,
		`{"id":1,"method":"set_config","params":[7,"selfavatar","/tmp/out/a.png"]}`,
	} {
		for most, want := range map[int64]string{1000: `"result"`, 999: "too large"} {
			got, err := exchange(t, &recorder{}, func(o *Options) { o.Limits.File = most }, call)
			if err != nil || !strings.Contains(got[0], want) {
				t.Errorf("%s with %d bytes: %v, %v", call, most, got, err)
			}
		}
	}
}
