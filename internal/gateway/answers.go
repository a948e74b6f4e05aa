package gateway

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"path"
	"strings"
	"time"
)

// connected is the best of core's numbers for its connections.
const connected = 4000

func constant(v any) func(*Gateway, context.Context, []json.RawMessage) (any, error) {
	return func(*Gateway, context.Context, []json.RawMessage) (any, error) { return v, nil }
}

func (g *Gateway) accountIDs(context.Context, []json.RawMessage) (any, error) {
	return []uint32{g.opts.Account}, nil
}

func (g *Gateway) selectedAccount(context.Context, []json.RawMessage) (any, error) {
	return g.opts.Account, nil
}

func (g *Gateway) accounts(ctx context.Context, _ []json.RawMessage) (any, error) {
	account, err := g.ask(ctx, "get_account_info", []any{g.opts.Account})
	return []json.RawMessage{account}, err
}

func (g *Gateway) systemInfo(ctx context.Context, _ []json.RawMessage) (any, error) {
	return g.some(ctx, "get_system_info", []any{}, "deltachat_core_version", "sqlite_version", "arch", "num_cpus", "level", "debug_assertions")
}

func (g *Gateway) info(ctx context.Context, params []json.RawMessage) (any, error) {
	return g.some(ctx, "get_info", params, "deltachat_core_version", "sqlite_version", "arch", "num_cpus", "level", "bot", "displayname",
		"is_configured", "number_of_chats", "number_of_chat_messages", "number_of_contacts", "messages_in_contact_requests",
		"database_version", "uptime", "fingerprint", "last_msg_id", "selfstatus")
}

// some asks core for a table and passes on what is named of it.
func (g *Gateway) some(ctx context.Context, method string, params any, names ...string) (any, error) {
	raw, err := g.ask(ctx, method, params)
	if err != nil {
		return nil, err
	}
	var all map[string]string
	if err := json.Unmarshal(raw, &all); err != nil {
		return nil, fmt.Errorf("core's answer is no table of texts")
	}
	wanted := map[string]bool{}
	for _, n := range names {
		wanted[n] = true
	}
	maps.DeleteFunc(all, func(name, _ string) bool { return !wanted[name] })
	return all, nil
}

// sleep is work, not waiting: a bot that sleeps means to go on.
func (g *Gateway) sleep(ctx context.Context, params []json.RawMessage) (any, error) {
	var seconds float64
	if err := json.Unmarshal(params[0], &seconds); err != nil {
		return nil, err
	}
	const most = 3600
	select {
	case <-time.After(time.Duration(min(max(seconds, 0), most) * float64(time.Second))):
		return nil, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// blobDir is a folder of the bot's: what it puts there it can send.
func (g *Gateway) blobDir(context.Context, []json.RawMessage) (any, error) {
	return g.opts.Temporary, nil
}

// copyToBlobDir leaves the file where it is, since it is fetched when it is sent.
func (g *Gateway) copyToBlobDir(_ context.Context, params []json.RawMessage) (any, error) {
	file := text(params[1])
	if !strings.HasPrefix(file, "/") {
		file = path.Join(g.opts.Home, file)
	}
	return file, nil
}

// invite is the host's for the bot itself, and asked of core once for a chat: core would make, and keep for ever, new tokens each
// time it is asked.
func (g *Gateway) invite(ctx context.Context, params []json.RawMessage) (any, error) {
	if string(params[1]) == "null" && g.opts.Invite != "" {
		return g.opts.Invite, nil
	}
	var chat uint32
	_ = json.Unmarshal(params[1], &chat) // it has been checked to be one, or null
	g.inviting.Lock()
	defer g.inviting.Unlock()
	if link, made := g.invites[chat]; made {
		return link, nil
	}
	if err := g.send("get_chat_securejoin_qr_code", 1); err != nil {
		return nil, err
	}
	raw, err := g.ask(ctx, "get_chat_securejoin_qr_code", params)
	if err != nil {
		return nil, err
	}
	var link string
	if err := json.Unmarshal(raw, &link); err != nil {
		return nil, fmt.Errorf("core's answer is no link")
	}
	g.invites[chat] = link
	return link, nil
}

func (g *Gateway) inviteSVG(ctx context.Context, params []json.RawMessage) (any, error) {
	link, err := g.invite(ctx, params)
	if err != nil {
		return nil, err
	}
	svg, err := g.ask(ctx, "create_qr_svg", []any{link})
	return []any{link, svg}, err
}

// miscSend is send_msg with its parameters in a row. Its result is the message's id and the message.
func (g *Gateway) miscSend(ctx context.Context, params []json.RawMessage) (any, error) {
	raw, err := g.ask(ctx, "misc_send_msg", params)
	if err != nil {
		return nil, err
	}
	var result []json.RawMessage
	if json.Unmarshal(raw, &result) == nil && len(result) > 0 {
		g.remember(result[0])
	}
	return raw, nil
}
