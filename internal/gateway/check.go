package gateway

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
)

// check returns the parameters as core gets them.
func (g *Gateway) check(ctx context.Context, r row, raw json.RawMessage) (json.RawMessage, error) {
	var params []json.RawMessage
	if err := json.Unmarshal(raw, &params); err != nil || len(params) != len(r.params) {
		return nil, &Error{CodeParams, fmt.Sprintf("%s: want an array of %d parameters", r.method, len(r.params))}
	}
	for i, k := range r.params {
		checked, err := g.param(ctx, k, params[i])
		if err != nil {
			return nil, &Error{codeOf(err), fmt.Sprintf("%s: parameter %d: %v", r.method, i+1, err)}
		}
		params[i] = checked
	}
	return json.Marshal(params)
}

func codeOf(err error) int {
	if e, ok := err.(*Error); ok {
		return e.Code
	}
	return CodeParams
}

func (g *Gateway) param(ctx context.Context, k kind, raw json.RawMessage) (json.RawMessage, error) {
	switch k {
	case kindAccount:
		return json.Marshal(g.opts.Account)
	case kindID:
		return decode[uint32](raw, nil)
	case kindIDs:
		return decode(raw, func(ids []uint32) error { return atMost(len(ids), 100, "ids") })
	case kindSendChat:
		return decode(raw, g.maySend)
	case kindSendMsg:
		return decode(raw, func(id uint32) error { return g.mayTouch(ctx, id) })
	case kindOwnMsgs:
		return decode(raw, func(ids []uint32) error { return g.mayTouchAll(ctx, ids) })
	case kindText:
		return decode(raw, func(s string) error { return atMost(len(s), g.opts.Limits.Text, "bytes") })
	case kindTexts:
		return decode(raw, checkTexts)
	case kindMessage:
		return g.message(ctx, raw)
	}
	return nil, fmt.Errorf("the policy has no check for it")
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

func (g *Gateway) maySend(chat uint32) error {
	for _, c := range g.opts.Chats {
		if c == chat {
			return nil
		}
	}
	return &Error{CodeRefused, fmt.Sprintf("chat %d is not the one that woke the bot: a bot writes only there so far", chat)}
}

// mayTouch allows the bot's own messages of this run and those that lie in a chat of the run.
func (g *Gateway) mayTouch(ctx context.Context, id uint32) error {
	g.mu.Lock()
	own := g.own[id]
	g.mu.Unlock()
	if own {
		return nil
	}
	params, err := json.Marshal([]uint32{g.opts.Account, id})
	if err != nil {
		return err
	}
	raw, err := g.opts.Core.Raw(ctx, "get_message", params)
	if err != nil {
		return g.coreError("get_message", err)
	}
	var m struct {
		ChatID uint32 `json:"chatId"`
	}
	if err := json.Unmarshal(raw, &m); err != nil {
		return fmt.Errorf("message %d: core's answer is not one", id)
	}
	return g.maySend(m.ChatID)
}

func (g *Gateway) mayTouchAll(ctx context.Context, ids []uint32) error {
	if err := atMost(len(ids), 20, "messages"); err != nil { // each is a call to core
		return err
	}
	for _, id := range ids {
		if err := g.mayTouch(ctx, id); err != nil {
			return err
		}
	}
	return nil
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
}

func (g *Gateway) message(ctx context.Context, raw json.RawMessage) (json.RawMessage, error) {
	var data messageData
	decoder := json.NewDecoder(strings.NewReader(string(raw)))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&data); err != nil {
		return nil, fmt.Errorf("want a message with text, html, viewtype, file, filename, quotedMessageId or quotedText: %w", err)
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
	if len(name) > 200 || strings.ContainsAny(name, "/\x00") {
		return fmt.Errorf("filename: at most 200 bytes and no slash")
	}
	path, err := g.opts.Files.Take(ctx, *data.File, name, g.opts.Limits.File)
	if err != nil {
		return fmt.Errorf("file %q: %w", *data.File, err)
	}
	data.File, data.Filename = &path, &name
	return nil
}

// coreError passes core's message on without core's paths.
func (g *Gateway) coreError(method string, err error) error {
	message := strings.ReplaceAll(err.Error(), g.opts.CorePaths, "…/")
	return &Error{-32603, fmt.Sprintf("%s: %.500s", method, message)}
}

// rewrite replaces every path of core's in an answer.
func (g *Gateway) rewrite(result json.RawMessage) (json.RawMessage, error) {
	if !strings.Contains(string(result), strings.Trim(g.opts.CorePaths, "/")) {
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

func (g *Gateway) walk(v any) any {
	switch v := v.(type) {
	case map[string]any:
		for k, e := range v {
			v[k] = g.walk(e)
		}
	case []any:
		for i, e := range v {
			v[i] = g.walk(e)
		}
	case string:
		if !strings.HasPrefix(v, g.opts.CorePaths) {
			return v
		}
		if path, ok := g.opts.Files.Show(v); ok {
			return path
		}
		return nil
	}
	return v
}
