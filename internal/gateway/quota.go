package gateway

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// Quota bounds what a bot sends beyond one run, by recipient.
type Quota interface {
	// Take takes so many messages, of so many bytes together, to each of some addresses from what may be sent. Members of a group for whom
	// there is no room are left out. Where there is room for nobody, or the bot has none, it takes nothing and returns an *Over.
	Take(ctx context.Context, to []string, messages int, bytes int64) error
	// Missed is told of messages that are not sent, since this limit is reached.
	Missed(limit string, messages int)
}

// Over says which limit of sending has no room, and until when.
type Over struct {
	Limit string // in words
	Until time.Time
}

func (o *Over) Error() string {
	at := o.Until.UTC().Add(time.Minute - time.Nanosecond).Truncate(time.Minute)
	return fmt.Sprintf("the limit of %s is reached: try again after %s", o.Limit, at.Format("2006-01-02 15:04 UTC"))
}

// A message is estimated: what core wraps around it, and what base64 adds. One with a large file is two mails.
const (
	wrapping  = 2000
	largeFile = 100_000
)

// spend takes a call that sends from the quota: to each member of the chats that it sends to.
func (g *Gateway) spend(ctx context.Context, r row, params []json.RawMessage, messages int) error {
	if g.opts.Quota == nil {
		return nil
	}
	chats, err := g.targets(ctx, r, params)
	if err != nil {
		return err
	}
	text, files := g.weigh(r, params)
	if files > largeFile {
		messages *= 2
	}
	for _, chat := range chats {
		to, err := g.members(ctx, chat)
		if err != nil {
			return err
		}
		err = g.opts.Quota.Take(ctx, to, messages, int64(messages)*wrapping+(text+files)*4/3)
		var over *Over
		if errors.As(err, &over) {
			g.opts.Quota.Missed(over.Limit, 1)
			return &Error{CodeLimit, r.method + ": " + over.Error()}
		}
		if err != nil { // whose words are the host's
			return &Error{CodeInternal, r.method + ": the host does not know for now what was sent before: try again later"}
		}
	}
	return nil
}

// targets are the chats that a call sends to, each once.
func (g *Gateway) targets(ctx context.Context, r row, params []json.RawMessage) ([]uint32, error) {
	var chats []uint32
	seen := map[uint32]bool{}
	add := func(id uint32) {
		if !seen[id] {
			seen[id] = true
			chats = append(chats, id)
		}
	}
	for i, k := range r.params {
		var ids []uint32
		switch k &^ nullable {
		case kindSendChat:
			var id uint32
			if json.Unmarshal(params[i], &id) == nil && id != 0 {
				add(id)
			}
		case kindSendMsg:
			ids = []uint32{0}
			if json.Unmarshal(params[i], &ids[0]) != nil {
				continue
			}
		case kindOwnMsgs:
			if json.Unmarshal(params[i], &ids) != nil {
				continue
			}
		}
		for _, id := range ids {
			chat, err := g.chatOf(ctx, id)
			if err != nil {
				return nil, err
			}
			add(chat)
		}
	}
	return chats, nil
}

// chatOf is the chat that a message is in.
func (g *Gateway) chatOf(ctx context.Context, message uint32) (uint32, error) {
	raw, err := g.ask(ctx, "get_message", []any{g.opts.Account, message})
	if err != nil {
		return 0, err
	}
	var m struct {
		ChatID uint32 `json:"chatId"`
	}
	if err := json.Unmarshal(raw, &m); err != nil {
		return 0, fmt.Errorf("message %d: core's answer is not one", message)
	}
	return m.ChatID, nil
}

// members are the addresses of a chat, without the bot's own. They are asked of core anew when the bot has changed them.
func (g *Gateway) members(ctx context.Context, id uint32) ([]string, error) {
	g.mu.Lock()
	known, there := g.to[id]
	g.mu.Unlock()
	if there {
		return known, nil
	}
	raw, err := g.ask(ctx, "get_full_chat_by_id", []any{g.opts.Account, id})
	if err != nil {
		return nil, err
	}
	var c chat
	if err := json.Unmarshal(raw, &c); err != nil {
		return nil, fmt.Errorf("chat %d: core's answer is not one", id)
	}
	others := []uint32{}
	for _, contact := range c.Contacts {
		if contact > lastSpecial {
			others = append(others, contact)
		}
	}
	to, err := g.addresses(ctx, others)
	if err != nil {
		return nil, err
	}
	g.mu.Lock()
	g.to[id] = to
	g.mu.Unlock()
	return to, nil
}

func (g *Gateway) addresses(ctx context.Context, contacts []uint32) ([]string, error) {
	if len(contacts) == 0 {
		return nil, nil
	}
	raw, err := g.ask(ctx, "get_contacts_by_ids", []any{g.opts.Account, contacts})
	if err != nil {
		return nil, err
	}
	var found map[string]struct {
		Address string `json:"address"`
	}
	if err := json.Unmarshal(raw, &found); err != nil {
		return nil, errors.New("core's answer is no table of contacts")
	}
	var to []string
	for _, c := range found {
		if c.Address != "" {
			to = append(to, c.Address)
		}
	}
	return to, nil
}

// weigh are the bytes of a call's parameters, and of the files that it names.
func (g *Gateway) weigh(r row, params []json.RawMessage) (text, files int64) {
	g.taking.Lock()
	defer g.taking.Unlock()
	for i, k := range r.params {
		text += int64(len(params[i]))
		switch k &^ nullable {
		case kindFile, kindUnpacked:
			var path string
			if json.Unmarshal(params[i], &path) == nil {
				files += g.sizes[path]
			}
		case kindMessage:
			var data messageData
			if json.Unmarshal(params[i], &data) == nil && data.File != nil {
				files += g.sizes[*data.File]
			}
		}
	}
	return text, files
}

// changed forgets who is in a chat whose members a call has changed.
func (g *Gateway) changed(r row, params []json.RawMessage) {
	if r.method != "add_contact_to_chat" && r.method != "remove_contact_from_chat" {
		return
	}
	var id uint32
	_ = json.Unmarshal(params[1], &id) // it was checked
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.to, id)
}
