package gateway

import (
	"bytes"
	"context"
	"encoding/json"
	"maps"
	"path"
	"slices"
	"strings"
	"testing"
)

// taker notes what the gateway would have fetched from the bot's sandbox.
type taker struct {
	t     *testing.T
	paths []string
}

func (f *taker) Take(_ context.Context, file, name string, max int64) (string, int64, error) {
	f.paths = append(f.paths, file)
	if !strings.HasPrefix(file, "/") || path.Clean(file) != file || strings.ContainsRune(file, 0) || len(file) > 2*maxPath {
		f.t.Errorf("the file %q is asked for", file)
	}
	if len(name) > 200 || strings.ContainsAny(name, "/\x00") || max <= 0 || max > DefaultLimits().File {
		f.t.Errorf("the file is to be named %q, and may have %d bytes", name, max)
	}
	return "/files/1", 10, nil
}

func (f *taker) Show(file string) (string, bool) {
	return "/attachments/in.png", file == "/account/x/dc.db-blobs/in.png"
}

// FuzzArguments gives any parameters to any method, and holds what core would get against the kinds of the policy.
func FuzzArguments(f *testing.F) {
	table := policy()
	methods := slices.Sorted(maps.Keys(table))
	index := func(method string) uint8 { return uint8(slices.Index(methods, method)) }
	f.Add(index("send_msg"), `[0,12,{"text":"a","file":"../../etc/passwd","filename":"x"}]`)
	f.Add(index("send_msg"), `[0,12,{"FILE":"/etc/passwd","File":null,"file":"a/./../b","viewType":"Call"}]`)
	f.Add(index("misc_send_msg"), `[0,12,"hi","/tmp/a/",null,null,3]`)
	f.Add(index("misc_set_draft"), `[0,4294967295,"x","//etc//passwd","",0,"Call"]`)
	f.Add(index("set_config"), `[0,"selfavatar","/tmp/\ud800"]`)
	f.Add(index("batch_set_config"), `[0,{"ui.a":"1","bot":null,"UI.B":""}]`)
	f.Add(index("batch_get_config"), `[0,["addr","sys.version"]]`)
	f.Add(index("forward_messages"), `[0,[1,2,3],12]`)
	f.Add(index("delete_messages_for_all"), `[0,[1,1,1],1]`)
	f.Add(index("add_contact_to_chat"), `[0,12,20]`)
	f.Add(index("check_qr"), `[0,"https://i.delta.chat/#`+ownPrint+`&i=x"]`)
	f.Add(index("set_chat_mute_duration"), `[0,12,{"kind":"Until","duration":-1,"KIND":"Forever"}]`)
	f.Add(index("send_reaction"), `[0,5,["x","y"]]`)
	f.Add(index("sleep"), `[1e-300]`)
	f.Fuzz(func(t *testing.T, method uint8, params string) {
		row := table[methods[int(method)%len(methods)]]
		if !json.Valid([]byte(params)) || row.action == refuse {
			return
		}
		core := &recorder{answers: map[string]string{"get_message": `{"chatId":12}`, "get_contact_encryption_info": adaInfo,
			"get_full_chat_by_id": `{"chatType":"Single","isEncrypted":true,"contactIds":[20]}`}}
		files := &taker{t: t}
		g := New(Options{Core: core, Files: files, Account: 7, Chats: []uint32{12}, CorePaths: "/account/x/", Limits: DefaultLimits(),
			Fingerprint: ownPrint, Consent: consenting{}, Home: "/bundle", Temporary: "/tmp"})
		checked, err := g.check(t.Context(), row, json.RawMessage(params))
		for _, call := range core.reached() {
			name, _, _ := strings.Cut(call, "[")
			if !slices.Contains([]string{"get_message", "get_full_chat_by_id", "get_contact_encryption_info"}, name) || !strings.Contains(call, "[7") {
				t.Errorf("%s: to check it, core got %s", row.method, call)
			}
		}
		if err != nil {
			return
		}
		if len(checked) != len(row.params) {
			t.Fatalf("%s: %d parameters, want %d", row.method, len(checked), len(row.params))
		}
		for i, k := range row.params {
			holdParameter(t, row.method, k, checked[i])
		}
	})
}

// holdParameter holds a checked parameter against its kind.
func holdParameter(t *testing.T, method string, k kind, raw json.RawMessage) {
	t.Helper()
	if string(raw) == "null" {
		if k&nullable == 0 && k != kindNothing {
			t.Errorf("%s: core would get null", method)
		}
		return
	}
	var s string
	isText := json.Unmarshal(raw, &s) == nil
	good := true
	switch k &^ nullable {
	case kindAccount:
		good = string(raw) == "7"
	case kindSendChat:
		good = string(raw) == "12"
	case kindID, kindSendMsg:
		var id uint32
		good = json.Unmarshal(raw, &id) == nil
	case kindConsenting: // nobody has consented: only ids that are no person's could pass
		good = false
	case kindFile, kindUnpacked:
		good = s == "/files/1"
	case kindFileName:
		good = isText && len(s) <= 200 && !strings.ContainsAny(s, "/\x00")
	case kindText, kindState:
		good = isText && len(s) <= DefaultLimits().Text
	case kindName:
		good = isText && len(s) <= 300
	case kindOwnQR:
		good = strings.HasPrefix(s, "https://i.delta.chat/#"+ownPrint+"&")
	case kindOwnMsgs, kindForward, kindIDs:
		var ids []uint32
		good = json.Unmarshal(raw, &ids) == nil && len(ids) <= 100
	case kindMessage:
		good = holdMessage(raw)
	case kindNothing:
		good = false
	}
	if !good || !json.Valid(raw) {
		t.Errorf("%s: core would get %.300s for kind %d", method, raw, k)
	}
}

func holdMessage(raw json.RawMessage) bool {
	var m map[string]any
	if json.Unmarshal(raw, &m) != nil {
		return false
	}
	for key, v := range m {
		text, _ := v.(string)
		if !slices.Contains([]string{"text", "html", "viewtype", "file", "filename", "quotedMessageId", "quotedText"}, key) ||
			key == "file" && v != nil && text != "/files/1" || key == "viewtype" && text == "Call" || len(text) > DefaultLimits().Text {
			return false
		}
	}
	return true
}

// FuzzAnswers has core answer with anything. What the bot gets of it is JSON, bounded, and has no path of core's.
func FuzzAnswers(f *testing.F) {
	f.Add(`{"file":"/account/x/dc.db-blobs/in.png","text":"/account/x is a path"}`, false)
	f.Add(`{"/account/x/key":["/account/x/a",{"b":"see /account/x/b"}]}`, false)
	f.Add(`"\u002faccount\/x\/dc.db-blobs\u002fin.png"`, false)
	f.Add(`[{"displayName":"Ada","isKeyContact":true},18446744073709551615,1e-7,null]`, false)
	f.Add(strings.Repeat("[", 200)+strings.Repeat("]", 200), false)
	f.Add(`cannot open /account/x/dc.db: no such file`, true)
	f.Add("{\"a\":\"\xff/account/x/\"}", false)
	f.Fuzz(func(t *testing.T, answer string, failed bool) {
		if failed {
			answer = "error:" + answer
		} else if !json.Valid([]byte(answer)) { // package core has parsed it
			return
		}
		const most = 2000
		limits := DefaultLimits()
		limits.Answer = most
		g := New(Options{Core: &recorder{answers: map[string]string{"get_contact": answer}}, Files: &taker{t: t}, Account: 7, CorePaths: "/account/x/", Limits: limits})
		var out bytes.Buffer
		if err := g.Serve(t.Context(), strings.NewReader(`{"id":1,"method":"get_contact","params":[7,5]}`+"\n"), &out); err != nil {
			t.Fatal(err)
		}
		var response struct {
			ID     int
			Result any
			Error  *Error
		}
		if err := json.Unmarshal(out.Bytes(), &response); err != nil || response.ID != 1 || bytes.Count(out.Bytes(), []byte("\n")) != 1 {
			t.Fatalf("the bot gets %q, %v", out.Bytes(), err)
		}
		if out.Len() > 8*most {
			t.Errorf("an answer of %d bytes became one of %d", len(answer), out.Len())
		}
		plain, err := json.Marshal(response.Result)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(plain), "/account/x/") || response.Error != nil && strings.Contains(response.Error.Message, "/account/x/") {
			t.Errorf("the bot sees a path of core's in %s", out.Bytes())
		}
	})
}

// FuzzPaths has a bot name any file. What is fetched lies where the name says, seen from the bot's own folder, and no answer of core's
// leads the bot to another file than the one shown to it.
func FuzzPaths(f *testing.F) {
	for _, p := range []string{"/tmp/a", "a", "../etc/passwd", "/tmp/../etc/passwd", "//etc", "/", "", ".", "..", "a/../../b", "/tmp/a\x00b", "~", "\\etc", "/tmp/\xff",
		"/account/x/dc.db-blobs/in.png", "/attachments/in.png", strings.Repeat("../", 50)} {
		f.Add(p, "")
	}
	f.Add("/tmp/a", "../b")
	f.Fuzz(func(t *testing.T, file, name string) {
		files := &taker{t: t}
		g := New(Options{Core: &recorder{}, Files: files, Account: 7, CorePaths: "/account/x/", Limits: DefaultLimits(), Home: "/bundle"})
		taken, err := g.take(t.Context(), file, name, DefaultLimits().File)
		if err != nil {
			if len(files.paths) > 0 {
				t.Errorf("%q was fetched, and refused: %v", file, err)
			}
		} else if want := path.Clean(path.Join(map[bool]string{true: "/", false: "/bundle"}[strings.HasPrefix(file, "/")], file)); taken != "/files/1" || files.paths[0] != want {
			t.Errorf("%q: fetched %q, want %q", file, files.paths, want)
		}
		raw, err := json.Marshal(map[string]string{"file": "/account/x/" + file, file: name})
		if err != nil {
			t.Fatal(err)
		}
		shown, err := g.rewrite(raw)
		var m map[string]*string
		if err != nil || json.Unmarshal(shown, &m) != nil || strings.Contains(string(shown), "/account/x/") {
			t.Fatalf("%s became %s, %v", raw, shown, err)
		}
		if v := m["file"]; file != "file" && v != nil && *v != "/attachments/in.png" {
			t.Errorf("%s became %s", raw, shown)
		}
	})
}
