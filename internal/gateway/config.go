package gateway

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
)

// maxConfig bounds the value of a key of the bot's own, in bytes.
const maxConfig = 100_000

func ownKey(key string) bool { return strings.HasPrefix(key, "ui.") && len(key) > len("ui.") }

// mayRead reports whether a configuration key says nothing of passwords, servers and files.
func mayRead(key string) bool {
	switch key {
	case "displayname", "selfstatus", "selfavatar", "bot", "addr", "configured_addr", "configured", "last_msg_id",
		"is_muted", "private_tag", "delete_device_after", "mdns_enabled", "bcc_self", "media_quality", "download_limit",
		"sys.version", "sys.msgsize_max_recommended":
		return true
	}
	return ownKey(key)
}

func mayWrite(key string) bool {
	switch key {
	case "displayname", "selfstatus", "selfavatar", "last_msg_id":
		return true
	}
	return ownKey(key)
}

// harmless are keys that bots set for a daemon's sake. They are the host's, or gone, and setting them changes nothing.
func harmless(key string) bool {
	switch key {
	case "bot", "e2ee_enabled", "mvbox_move", "mvbox_watch", "only_fetch_mvbox", "sentbox_watch", "inbox_watch", "show_emails",
		"delete_server_after", "delete_device_after", "mdns_enabled", "bcc_self", "save_mime_headers", "download_limit", "media_quality",
		"sync_msgs", "fetch_existing_msgs", "skip_start_messages", "is_muted", "private_tag", "verified_one_on_one_chats",
		"force_encryption", "gossip_period", "webxdc_realtime_enabled", "debug_logging", "disable_idle":
		return true
	}
	return false
}

func checkKeys(keys []string) error {
	for _, key := range keys {
		if !mayRead(key) {
			return refusedKey(key)
		}
	}
	return atMost(len(keys), 100, "keys")
}

func refusedKey(key string) error {
	return &Error{CodeRefused, fmt.Sprintf("the key %.50q is refused: it would show or change the account's password, keys or server; keys of the bot's own begin with ui.", key)}
}

// getConfig knows one key besides those that may be read: the list of them, which tools print.
func (g *Gateway) getConfig(ctx context.Context, params []json.RawMessage) (any, error) {
	key := text(params[1])
	switch {
	case key == "sys.config_keys":
		return "addr configured_addr displayname selfstatus selfavatar bot last_msg_id", nil
	case !mayRead(key):
		return nil, refusedKey(key)
	case key == "bot", key == "configured":
		return "1", nil
	}
	return g.ask(ctx, "get_config", params)
}

func (g *Gateway) setConfig(ctx context.Context, params []json.RawMessage) (any, error) {
	var value *string
	if err := json.Unmarshal(params[2], &value); err != nil {
		return nil, err
	}
	return nil, g.setKey(ctx, text(params[1]), value)
}

func (g *Gateway) batchSetConfig(ctx context.Context, params []json.RawMessage) (any, error) {
	var config map[string]*string
	if err := json.Unmarshal(params[1], &config); err != nil {
		return nil, err
	}
	for key := range config {
		if !mayWrite(key) && !harmless(key) {
			return nil, refusedKey(key)
		}
	}
	for key, value := range config {
		if err := g.setKey(ctx, key, value); err != nil {
			return nil, err
		}
	}
	return nil, nil
}

func (g *Gateway) setKey(ctx context.Context, key string, value *string) error {
	switch {
	case harmless(key):
		return nil
	case !mayWrite(key) || len(key) > 100:
		return refusedKey(key)
	case value != nil && len(*value) > maxValue(key):
		return atMost(len(*value), maxValue(key), "bytes")
	}
	var err error
	switch {
	case ownKey(key):
		err = g.keepKey(ctx, key, value)
	case key != "last_msg_id":
		value, err = g.profile(ctx, key, value)
	}
	if err != nil {
		return err
	}
	if _, err := g.ask(ctx, "set_config", []any{g.opts.Account, key, value}); err != nil {
		return err
	}
	if key == "last_msg_id" && value != nil {
		g.feed.seenUpTo(*value)
	}
	return nil
}

// maxValue bounds the value of a key that a bot may write, in bytes.
func maxValue(key string) int {
	switch key {
	case "displayname":
		return 300
	case "selfstatus":
		return 2000 // it is in every message
	case "selfavatar":
		return maxPath
	case "last_msg_id":
		return 20
	}
	return maxConfig
}

// profile counts a change of what others see of the bot as a message, and gives the value for core. What is so already is no change.
func (g *Gateway) profile(ctx context.Context, key string, value *string) (*string, error) {
	if key != "selfavatar" {
		raw, err := g.ask(ctx, "get_config", []any{g.opts.Account, key})
		var now *string
		if err == nil && json.Unmarshal(raw, &now) == nil && now != nil && value != nil && *now == *value {
			return value, nil
		}
	}
	if err := g.send("set_config", 1); err != nil || key != "selfavatar" || value == nil || *value == "" {
		return value, err
	}
	taken, err := g.take(ctx, *value, "", min(maxUnpacked, g.opts.Limits.File))
	return &taken, err
}

// keepKey counts the value of a key of the bot's own, and its keys: what is kept for it is bounded in number and size.
func (g *Gateway) keepKey(ctx context.Context, key string, value *string) error {
	if value == nil || *value == "" {
		return nil
	}
	if err := g.keep(*value); err != nil {
		return err
	}
	g.keying.Lock() // core is asked once
	defer g.keying.Unlock()
	if g.keys == nil {
		raw, err := g.ask(ctx, "get_all_ui_config_keys", []any{g.opts.Account})
		if err != nil {
			return err
		}
		var list []string
		if err := json.Unmarshal(raw, &list); err != nil {
			return fmt.Errorf("core's answer is no list of keys")
		}
		g.keys = map[string]bool{}
		for _, k := range list {
			g.keys[k] = true
		}
	}
	if !g.keys[key] && len(g.keys) >= g.opts.Limits.Keys {
		return &Error{CodeLimit, fmt.Sprintf("the account has %d ui.* keys, more are not kept: keep several things under one key, or in the bot's folder", len(g.keys))}
	}
	g.keys[key] = true
	return nil
}

// text is a string that has been checked to be one.
func text(raw json.RawMessage) string {
	var s string
	_ = json.Unmarshal(raw, &s)
	return s
}
