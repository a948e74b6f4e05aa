package gateway

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
)

// check returns the parameters as core gets them.
func (g *Gateway) check(ctx context.Context, r row, raw json.RawMessage) ([]json.RawMessage, error) {
	params := []json.RawMessage{}
	if len(raw) > 0 || len(r.params) > 0 {
		if err := json.Unmarshal(raw, &params); err != nil || len(params) != len(r.params) {
			return nil, &Error{CodeParams, fmt.Sprintf("%s: want an array of %d parameters", r.method, len(r.params))}
		}
	}
	nameFile(r, params)
	for i, k := range r.params {
		if k&nullable != 0 && string(params[i]) == "null" {
			continue
		}
		checked, err := g.param(ctx, k&^nullable, params[i])
		if err != nil {
			return nil, &Error{codeOf(err), fmt.Sprintf("%s: parameter %d: %v", r.method, i+1, err)}
		}
		params[i] = checked
	}
	return params, nil
}

// nameFile gives a file that goes without a name that of the bot's file: core's private copy has another one.
func nameFile(r row, params []json.RawMessage) {
	for i, k := range r.params {
		if k&^nullable != kindFileName || i == 0 || string(params[i]) != "null" {
			continue
		}
		file := text(params[i-1])
		if name, err := json.Marshal(file[strings.LastIndexByte(file, '/')+1:]); err == nil && file != "" {
			params[i] = name
		}
	}
}

func codeOf(err error) int {
	if e, ok := err.(*Error); ok {
		return e.Code
	}
	return CodeParams
}

// param checks the parameters that concern a chat, a contact or a file; value has the others.
func (g *Gateway) param(ctx context.Context, k kind, raw json.RawMessage) (json.RawMessage, error) {
	switch k {
	case kindAccount:
		return json.Marshal(g.opts.Account)
	case kindSendChat:
		return decode(raw, func(id uint32) error { return g.maySend(ctx, id) })
	case kindSendMsg:
		return decode(raw, func(id uint32) error { return g.mayTouch(ctx, id) })
	case kindOwnMsgs:
		return decode(raw, func(ids []uint32) error { return g.mayTouchAll(ctx, ids) })
	case kindConsenting:
		return decode(raw, func(id uint32) error { return g.mayAdd(ctx, id) })
	case kindFile:
		return g.file(ctx, raw, g.opts.Limits.File)
	case kindUnpacked:
		return g.file(ctx, raw, min(maxUnpacked, g.opts.Limits.File))
	case kindMessage:
		return g.message(ctx, raw)
	case kindConfig:
		return decode(raw, func(c map[string]*string) error { return atMost(len(c), 100, "keys") })
	case kindKeys:
		return decode(raw, checkKeys)
	}
	return g.value(k, raw)
}

func (g *Gateway) value(k kind, raw json.RawMessage) (json.RawMessage, error) {
	switch k {
	case kindID:
		return decode[uint32](raw, nil)
	case kindIDs:
		return decode(raw, func(ids []uint32) error { return atMost(len(ids), 100, "ids") })
	case kindForward:
		return decode(raw, func(ids []uint32) error { return atMost(len(ids), 20, "messages") })
	case kindFlag:
		return decode[bool](raw, nil)
	case kindNumber:
		return decode[int64](raw, nil)
	case kindSeconds:
		return decode[float64](raw, nil)
	case kindText:
		return decode(raw, func(s string) error { return atMost(len(s), g.opts.Limits.Text, "bytes") })
	case kindName:
		return decode(raw, func(s string) error { return atMost(len(s), 300, "bytes") })
	case kindState:
		return decode(raw, g.keep)
	case kindQR:
		return decode(raw, func(s string) error { return atMost(len(s), 2000, "bytes") })
	case kindOwnQR:
		return decode(raw, g.ownQR)
	case kindFileName:
		return decode(raw, checkFileName)
	case kindTexts:
		return decode(raw, checkTexts)
	case kindViewtype:
		return decode(raw, oneOf(append(sendTypes(), "Unknown", "Call")...))
	case kindSendType:
		return decode(raw, oneOf(sendTypes()...))
	case kindVisibility:
		return decode(raw, oneOf("Normal", "Archived", "Pinned"))
	case kindMute:
		return checkMute(raw)
	case kindNothing:
		return raw, refuseValue(string(raw) != "null")
	}
	return nil, fmt.Errorf("the policy has no check for it")
}

// sendTypes are the kinds of messages that a bot may send. A call is none: it would ring.
func sendTypes() []string {
	return []string{"Text", "Image", "Gif", "Sticker", "Audio", "Voice", "Video", "File", "Webxdc", "Vcard"}
}

// ownQR allows the bot's own invite links: core makes a contact of whom any other code names.
func (g *Gateway) ownQR(code string) error {
	link, own := strings.CutPrefix(code, "https://i.delta.chat/#")
	if !own || len(code) > 2000 || g.opts.Fingerprint == "" || !strings.HasPrefix(link, g.opts.Fingerprint+"&") {
		return &Error{CodeRefused, "only the bot's own invite links can be checked: core would make a contact of whom another code names. Read the code's text"}
	}
	return nil
}

// keep counts what is kept for the bot from run to run.
func (g *Gateway) keep(value string) error {
	if err := atMost(len(value), g.opts.Limits.Text, "bytes"); err != nil {
		return err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.state+len(value) > g.opts.Limits.State {
		return &Error{CodeLimit, fmt.Sprintf("more than %d bytes of drafts and ui.* keys in one run: keep larger things in the bot's folder", g.opts.Limits.State)}
	}
	g.state += len(value)
	return nil
}

func refuseValue(refused bool) error {
	if refused {
		return fmt.Errorf("want null: a bot has no location")
	}
	return nil
}

func oneOf(names ...string) func(string) error {
	return func(s string) error {
		if slices.Contains(names, s) {
			return nil
		}
		return fmt.Errorf("want one of %s", strings.Join(names, ", "))
	}
}

// checkMute writes core's MuteDuration anew, with what was understood of it.
func checkMute(raw json.RawMessage) (json.RawMessage, error) {
	var mute struct {
		Kind     string `json:"kind"`
		Duration *int64 `json:"duration,omitempty"`
	}
	if err := json.Unmarshal(raw, &mute); err != nil {
		return nil, fmt.Errorf("want a MuteDuration")
	}
	if err := oneOf("NotMuted", "Forever", "Until")(mute.Kind); err != nil {
		return nil, err
	}
	return json.Marshal(mute)
}

// decode reads raw as a T, checks it, and writes it anew: core gets only what was understood.
func decode[T any](raw json.RawMessage, check func(T) error) (json.RawMessage, error) {
	var v T
	if err := json.Unmarshal(raw, &v); err != nil || string(raw) == "null" {
		return nil, fmt.Errorf("want a %T", v)
	}
	if check != nil {
		if err := check(v); err != nil {
			return nil, err
		}
	}
	return json.Marshal(v)
}

func atMost(n, max int, what string) error {
	if n > max {
		return &Error{CodeLimit, fmt.Sprintf("%d %s, at most %d", n, what, max)}
	}
	return nil
}

func checkTexts(texts []string) error {
	for _, s := range texts {
		if err := atMost(len(s), 64, "bytes"); err != nil {
			return err
		}
	}
	return atMost(len(texts), 10, "strings")
}

// messageData is the part of core's MessageData that a bot may fill in.
type messageData struct {
	Text            *string `json:"text"`
	HTML            *string `json:"html"`
	ViewType        *string `json:"viewtype"`
	File            *string `json:"file"`
	Filename        *string `json:"filename"`
	QuotedMessageID *uint32 `json:"quotedMessageId"`
	QuotedText      *string `json:"quotedText"`

	// What clients name without filling it in.
	Location           *json.RawMessage `json:"location,omitempty"`
	OverrideSenderName *json.RawMessage `json:"overrideSenderName,omitempty"`
}

func (g *Gateway) message(ctx context.Context, raw json.RawMessage) (json.RawMessage, error) {
	var data messageData
	decoder := json.NewDecoder(strings.NewReader(string(raw)))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&data); err != nil {
		return nil, fmt.Errorf("want a message with text, html, viewtype, file, filename, quotedMessageId or quotedText: %w", err)
	}
	if data.Location != nil || data.OverrideSenderName != nil {
		return nil, errors.New("location and overrideSenderName are not for bots: leave them out")
	}
	if data.ViewType != nil {
		if err := oneOf(sendTypes()...)(*data.ViewType); err != nil {
			return nil, fmt.Errorf("viewtype: %w", err)
		}
	}
	for _, s := range []*string{data.Text, data.HTML, data.QuotedText} {
		if s != nil {
			if err := atMost(len(*s), g.opts.Limits.Text, "bytes of text"); err != nil {
				return nil, err
			}
		}
	}
	if err := g.attach(ctx, &data); err != nil {
		return nil, err
	}
	return json.Marshal(data)
}

// attach puts core's private copy in the place of the file that the bot named.
func (g *Gateway) attach(ctx context.Context, data *messageData) error {
	if data.File == nil || *data.File == "" {
		data.File, data.Filename = nil, nil
		return nil
	}
	name := (*data.File)[strings.LastIndexByte(*data.File, '/')+1:]
	if data.Filename != nil && *data.Filename != "" {
		name = *data.Filename
	}
	path, err := g.take(ctx, *data.File, name, g.opts.Limits.File)
	if err != nil {
		return err
	}
	data.File, data.Filename = &path, &name
	return nil
}

func checkFileName(name string) error {
	if len(name) > 200 || strings.ContainsAny(name, "/\x00") {
		return fmt.Errorf("filename: at most 200 bytes and no slash")
	}
	return nil
}

// maxUnpacked bounds pictures of profiles, stickers and vcards, in bytes: core takes them apart in its memory.
const maxUnpacked = 5 << 20

// file puts core's private copy in the place of a path.
func (g *Gateway) file(ctx context.Context, raw json.RawMessage, most int64) (json.RawMessage, error) {
	var path string
	if _, err := decode(raw, func(s string) error { path = s; return nil }); err != nil {
		return nil, err
	}
	taken, err := g.take(ctx, path, "", most)
	if err != nil {
		return nil, err
	}
	return json.Marshal(taken)
}

// take fetches a file of the bot's. A relative path starts where the bot does. Core names its copy as the bot did.
func (g *Gateway) take(ctx context.Context, file, name string, most int64) (string, error) {
	if name == "" {
		name = file[strings.LastIndexByte(file, '/')+1:]
	}
	if err := checkFileName(name); err != nil {
		return "", err
	}
	if len(file) > maxPath || strings.ContainsRune(file, 0) {
		return "", fmt.Errorf("file: at most %d bytes and no NUL", maxPath)
	}
	if !strings.HasPrefix(file, "/") && g.opts.Home != "" {
		file = g.opts.Home + "/" + file
	}
	g.taking.Lock()
	defer g.taking.Unlock()
	left := g.opts.Limits.Files - g.files
	if left <= 0 {
		return "", &Error{CodeLimit, fmt.Sprintf("more than %d bytes of files in one run", g.opts.Limits.Files)}
	}
	taken, size, err := g.opts.Files.Take(ctx, path.Clean(file), name, min(most, left))
	if err != nil {
		return "", fmt.Errorf("file %.300q: %w", file, err)
	}
	g.files += max(size, minFile)
	g.sizes[taken] = size
	return taken, nil
}

// maxPath is the kernel's, in bytes. An empty file counts as minFile bytes.
const (
	maxPath = 4096
	minFile = 64 << 10
)

// cut takes core's folder out of a text, also where it would be there again after that.
func (g *Gateway) cut(text string) string {
	for g.opts.CorePaths != "" && strings.Contains(text, g.opts.CorePaths) {
		text = strings.ReplaceAll(text, g.opts.CorePaths, "…/")
	}
	return text
}

// coreError passes core's message on without core's paths.
func (g *Gateway) coreError(method string, err error) error {
	message := g.cut(err.Error())
	return &Error{CodeInternal, fmt.Sprintf("%s: %.500s", method, message)}
}

// rewrite replaces every path of core's in an answer.
func (g *Gateway) rewrite(result json.RawMessage) (json.RawMessage, error) {
	if text := string(result); !strings.Contains(text, strings.Trim(g.opts.CorePaths, "/")) && !strings.Contains(text, contactKey) &&
		!strings.Contains(text, `\u`) && !strings.Contains(text, `\/`) { // in which a path could hide
		return result, nil
	}
	var v any
	decoder := json.NewDecoder(strings.NewReader(string(result)))
	decoder.UseNumber()
	if err := decoder.Decode(&v); err != nil {
		return nil, fmt.Errorf("core's answer is not JSON: %w", err)
	}
	return json.Marshal(g.walk(v))
}

// contactKey is in every contact of core.
const contactKey = "isKeyContact"

// completeContact adds what contacts of older cores had: there are clients that insist on it.
func completeContact(v map[string]any) {
	if _, contact := v[contactKey]; !contact {
		return
	}
	for key, value := range map[string]any{"isVerified": false, "nameAndAddr": v["displayName"], "wasSeenRecently": false} {
		if _, there := v[key]; !there {
			v[key] = value
		}
	}
}

func (g *Gateway) walk(v any) any {
	switch v := v.(type) {
	case map[string]any:
		completeContact(v)
		for k, e := range v {
			if clean := g.cut(k); clean != k {
				delete(v, k)
				k = clean
			}
			v[k] = g.walk(e)
		}
	case []any:
		for i, e := range v {
			v[i] = g.walk(e)
		}
	case string:
		if !strings.HasPrefix(v, g.opts.CorePaths) {
			return g.cut(v)
		}
		if path, ok := g.opts.Files.Show(v); ok {
			return path
		}
		return nil
	}
	return v
}
