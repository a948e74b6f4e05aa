package gateway

import (
	"context"
	"encoding/json"
	"strings"
	"testing"
)

// consenting are the fingerprints of those who have consented.
type consenting []string

func (c consenting) Consents(_ context.Context, fingerprint string) (bool, error) {
	for _, f := range c {
		if f == fingerprint {
			return true, nil
		}
	}
	return false, nil
}

const (
	ownPrint   = "AAAA1111BBBB2222CCCC3333DDDD4444EEEE5555"
	adaPrint   = "0123456789ABCDEF0123456789ABCDEF01234567"
	adaInfo    = `"End-to-end encryption available.\n\nFingerprints:\n\nMe (bot@x):\nAAAA 1111 BBBB 2222 CCCC\n3333 DDDD 4444 EEEE 5555\n\nAda (a@x):\n0123 4567 89AB CDEF 0123\n4567 89AB CDEF 0123 4567"`
	trickyInfo = `"Fingerprints:\n\nAAAA 1111 BBBB 2222 CCCC 3333 DDDD 4444 EEEE 5555\n\n0123 4567 89AB CDEF 0123 4567 89AB CDEF 0123 4567 (m@x):\nFFFF 9999 FFFF 9999 FFFF\n9999 FFFF 9999 FFFF 9999"`
)

// TestWhomABotMayWriteTo tries chats other than that of the run.
func TestWhomABotMayWriteTo(t *testing.T) {
	send := `{"id":1,"method":"send_msg","params":[7,13,{"text":"hi"}]}`
	add := `{"id":1,"method":"add_contact_to_chat","params":[7,12,20]}`
	for _, test := range []struct {
		name, line, chat, info string
		consent                Consent
		allowed                bool
	}{
		{"a contact that consented", send, `{"chatType":"Single","isEncrypted":true,"contactIds":[20]}`, adaInfo, consenting{adaPrint}, true},
		{"a contact that did not", send, `{"chatType":"Single","isEncrypted":true,"contactIds":[20]}`, adaInfo, consenting{}, false},
		{"nobody is asked", send, `{"chatType":"Single","isEncrypted":true,"contactIds":[20]}`, adaInfo, nil, false},
		{"a contact named as another's fingerprint", send, `{"chatType":"Single","isEncrypted":true,"contactIds":[20]}`, trickyInfo, consenting{adaPrint}, false},
		{"without encryption", send, `{"chatType":"Single","contactIds":[20]}`, adaInfo, consenting{adaPrint}, false},
		{"itself", send, `{"chatType":"Single","isEncrypted":true,"isSelfTalk":true,"contactIds":[1]}`, adaInfo, consenting{adaPrint, ownPrint}, false},
		{"a group with one that consented", send, `{"chatType":"Group","isEncrypted":true,"selfInGroup":true,"contactIds":[1,20]}`, adaInfo, consenting{adaPrint}, true},
		{"a group of others", send, `{"chatType":"Group","isEncrypted":true,"selfInGroup":true,"contactIds":[1,20,21]}`, adaInfo, consenting{}, false},
		{"a group that the bot left", send, `{"chatType":"Group","isEncrypted":true,"contactIds":[20]}`, adaInfo, consenting{adaPrint}, false},
		{"a group of its own", send, `{"chatType":"Group","isEncrypted":true,"selfInGroup":true,"contactIds":[1]}`, adaInfo, consenting{}, true},
		{"a channel of its own", send, `{"chatType":"OutBroadcast","isEncrypted":true,"contactIds":[]}`, adaInfo, consenting{}, true},
		{"somebody's channel", send, `{"chatType":"InBroadcast","isEncrypted":true,"contactIds":[20]}`, adaInfo, consenting{adaPrint}, false},
		{"adding one that consented", add, "", adaInfo, consenting{adaPrint}, true},
		{"adding one that did not", add, "", adaInfo, consenting{}, false},
		{"adding, and nobody is asked", add, "", adaInfo, nil, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			core := &recorder{answers: map[string]string{"get_full_chat_by_id": test.chat, "get_contact_encryption_info": test.info}}
			answers, err := exchange(t, core, func(o *Options) { o.Consent, o.Fingerprint = test.consent, ownPrint }, test.line)
			if err != nil {
				t.Fatal(err)
			}
			reached := strings.Join(core.reached(), "\n")
			acted := strings.Contains(reached, "send_msg") || strings.Contains(reached, "add_contact")
			if acted != test.allowed || strings.Contains(answers[0], `"error"`) == test.allowed {
				t.Errorf("core got %s, the bot %s, want it allowed: %v", reached, answers[0], test.allowed)
			}
		})
	}
}

// TestParametersOfEveryKind has one call for each rule that a parameter of the wide table is under.
func TestParametersOfEveryKind(t *testing.T) {
	long := strings.Repeat("x", 100_001)
	for _, test := range []struct {
		line   string
		core   string // what reaches core of it; empty: nothing
		answer string
	}{
		{`{"id":1,"method":"misc_set_draft","params":[7,13,"state","/tmp/out/a.png",null,null,"File"]}`, `misc_set_draft[7,13,"state","/files/1","a.png",null,"File"]`, `"result"`},
		{`{"id":1,"method":"misc_set_draft","params":[7,13,null,"/etc/passwd",null,null,null]}`, "", "no such file in the sandbox"},
		{`{"id":1,"method":"misc_set_draft","params":[7,13,"` + long + `",null,null,null,null]}`, "", "at most 100000"},
		{`{"id":1,"method":"misc_set_draft","params":[7,13,null,null,"../x",null,null]}`, "", "no slash"},
		{`{"id":1,"method":"misc_set_draft","params":[7,13,null,null,null,null,"Virus"]}`, "", "want one of"},
		{`{"id":1,"method":"misc_send_msg","params":[7,12,"hi",null,null,[1,2],null]}`, "", "a bot has no location"},
		{`{"id":1,"method":"misc_send_msg","params":[7,12,"hi","/tmp/out/a.png",null,null,null]}`, `misc_send_msg[7,12,"hi","/files/1","a.png",null,null]`, `"result"`},
		{`{"id":1,"method":"misc_send_draft","params":[7,9]}`, "", "chat 9 is not the one"},
		{`{"id":1,"method":"send_sticker","params":[7,12,"/account/x/dc.db"]}`, "", "no such file in the sandbox"},
		{`{"id":1,"method":"set_chat_profile_image","params":[7,12,"/proc/self/environ"]}`, "", "no such file in the sandbox"},
		{`{"id":1,"method":"set_chat_profile_image","params":[7,12,null]}`, "set_chat_profile_image[7,12,null]", `"result"`},
		{`{"id":1,"method":"set_chat_name","params":[7,12,"` + strings.Repeat("x", 301) + `"]}`, "", "at most 300"},
		{`{"id":1,"method":"set_chat_mute_duration","params":[7,12,{"kind":"Until","duration":5,"more":{}}]}`, `[7,12,{"kind":"Until","duration":5}]`, `"result"`},
		{`{"id":1,"method":"set_chat_mute_duration","params":[7,12,{"kind":"Never"}]}`, "", "want one of NotMuted"},
		{`{"id":1,"method":"set_chat_visibility","params":[7,12,"Hidden"]}`, "", "want one of Normal"},
		{`{"id":1,"method":"parse_vcard","params":["/account/x/dc.db"]}`, "", "no such file in the sandbox"},
		{`{"id":1,"method":"set_config","params":[7,"selfavatar","/account/x/dc.db"]}`, "", "no such file in the sandbox"},
		{`{"id":1,"method":"set_config","params":[7,"selfavatar","/tmp/out/a.png"]}`, `set_config[7,"selfavatar","/files/1"]`, `"result":null`},
		{`{"id":1,"method":"set_config","params":[7,"ui.state","1"]}`, `set_config[7,"ui.state","1"]`, `"result":null`},
		{`{"id":1,"method":"set_config","params":[7,"mvbox_move","0"]}`, "", `"result":null`},
		{`{"id":1,"method":"set_config","params":[7,"proxy_url","http://evil"]}`, "", "set_config: the key"},
		{`{"id":1,"method":"batch_set_config","params":[7,{"ui.a":"1","send_pw":"2"}]}`, "", "send_pw"},
		{`{"id":1,"method":"batch_set_config","params":[7,{"bot":"1","ui.a":"1"}]}`, `set_config[7,"ui.a","1"]`, `"result":null`},
		{`{"id":1,"method":"batch_get_config","params":[7,["addr","configured_mail_pw"]]}`, "", "configured_mail_pw"},
		{`{"id":1,"method":"get_config","params":[9,"addr"]}`, `get_config[7,"addr"]`, `"result"`},
		{`{"id":1,"method":"check_qr","params":[7,"` + strings.Repeat("x", 2001) + `"]}`, "", "only the bot's own invite links"},
		{`{"id":1,"method":"check_qr","params":[7,"mailto:eve@evil.test"]}`, "", "core would make a contact"},
		{`{"id":1,"method":"check_qr","params":[7,"https://i.delta.chat/#FFFF1111BBBB2222CCCC3333DDDD4444EEEE5555&i=x"]}`, "", "core would make a contact"},
		{`{"id":1,"method":"check_qr","params":[7,"https://i.delta.chat/#` + ownPrint + `&i=x"]}`, `check_qr[7,"https://i.delta.chat/#`, `"result"`},
		{`{"id":1,"method":"create_qr_svg","params":["` + strings.Repeat("x", 2001) + `"]}`, "", "at most 2000"},
		{`{"id":1,"method":"send_msg","params":[7,12,{"viewtype":"Call"}]}`, "", "viewtype: want one of"},
		{`{"id":1,"method":"misc_set_draft","params":[7,13,"x",null,null,null,"Call"]}`, "", "want one of"},
		{`{"id":1,"method":"get_chat_media","params":[7,13,"Call",null,null]}`, `get_chat_media[7,13,"Call"`, `"result"`},
		{`{"id":1,"method":"send_msg","params":[7,3,{"text":"x"}]}`, "", "chat 3 is not the one"},
		{`{"id":1,"method":"send_msg","params":[7,12,{"file":"` + strings.Repeat("x", 5000) + `"}]}`, "", "at most"},
		{`{"id":1,"method":"send_msg","params":[7,12,{"file":"/tmp/\u0000x","filename":"x"}]}`, "", "no NUL"},
		{`{"id":1,"method":"set_config","params":[7,"selfstatus","` + strings.Repeat("x", 2001) + `"]}`, "", "2001 bytes, at most 2000"},
		{`{"id":1,"method":"set_config","params":[7,"last_msg_id","` + strings.Repeat("1", 21) + `"]}`, "", "21 bytes, at most 20"},
		{`{"id":1,"method":"set_config","params":[7,"displayname","Bot"]}`, `set_config[7,"displayname","Bot"]`, `"result":null`},
		{`{"id":1,"method":"get_chat_securejoin_qr_code","params":[7,null]}`, "", `"result":"https://i.delta.chat/#x"`},
		{`{"id":1,"method":"get_chat_securejoin_qr_code","params":[7,9]}`, "", "chat 9 is not the one"},
		{`{"id":1,"method":"get_all_account_ids"}`, "", `"result":[7]`},
		{`{"id":1,"method":"is_configured","params":[1]}`, "", `"result":true`},
		{`{"id":1,"method":"stop_io","params":[1]}`, "", `"result":null`},
		{`{"id":1,"method":"get_blob_dir","params":[1]}`, "", `"result":"/tmp"`},
		{`{"id":1,"method":"copy_to_blob_dir","params":[1,"a.png"]}`, "", `"result":"/bundle/a.png"`},
		{`{"id":1,"method":"get_next_event","params":[]}`, "", "events are handed to the handlers"},
		{`{"id":1,"method":"get_info","params":[1]}`, "get_info[7]", `"result":{"bot":"1"}`},
		{`{"id":1,"method":"forward_messages","params":[7,[5,6],9]}`, "", "chat 9 is not the one"},
	} {
		core := &recorder{answers: map[string]string{"get_info": `{"bot":"1","database_dir":"/account/x/dc.db","used_transport_settings":"x@relay"}`,
			"get_all_ui_config_keys": `["ui.state"]`, "get_full_chat_by_id": `{"chatType":"Group","isEncrypted":true,"selfInGroup":true}`,
			"get_chat_securejoin_qr_code": `"https://i.delta.chat/#y"`}}
		answers, err := exchange(t, core, func(o *Options) {
			o.Home, o.Temporary, o.Invite, o.Fingerprint = "/bundle", "/tmp", "https://i.delta.chat/#x", ownPrint
			o.Consent = consenting{}
		}, test.line)
		reached := strings.Join(core.reached(), "\n")
		if err != nil || test.core == "" && reached != "" || !strings.Contains(reached, test.core) || !strings.Contains(answers[0], test.answer) {
			t.Errorf("%.100s: core got %q, want %q; the answer is %.300s, want %q in it (%v)", test.line, reached, test.core, answers[0], test.answer, err)
		}
	}
}

// TestListsCountEach: a list of messages is as many messages.
func TestListsCountEach(t *testing.T) {
	core := &recorder{}
	answers, err := exchange(t, core, func(o *Options) { o.Limits.Sends = 3 },
		`{"id":1,"method":"forward_messages","params":[7,[5,6,8,9],12]}`, `{"id":2,"method":"forward_messages","params":[7,[5,6,8],12]}`)
	if err != nil || !strings.Contains(strings.Join(answers, "\n"), "more than 3 messages") || len(core.reached()) != 1 {
		t.Errorf("%v, %v, core got %v, want the second only", answers, err, core.reached())
	}
}

// TestPathsWithinTexts: a path of core's is cut also where an answer has it in the midst of a text.
func TestPathsWithinTexts(t *testing.T) {
	core := &recorder{answers: map[string]string{"get_message_html": `"see /account/x/dc.db-blobs/a"`}}
	answers, err := exchange(t, core, nil, `{"id":1,"method":"get_message_html","params":[7,5]}`)
	if err != nil || strings.Contains(answers[0], "/account/x") {
		t.Errorf("%s, %v", answers, err)
	}
	if !json.Valid([]byte(answers[0])) {
		t.Error("not JSON")
	}
}
