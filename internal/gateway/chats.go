package gateway

import (
	"context"
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
)

// Consent knows who may be written to unasked: contacts that wrote to the bot directly and have not told it to stop. A contact
// is the fingerprint of its key, in upper-case hexadecimal.
type Consent interface {
	Consents(ctx context.Context, fingerprint string) (bool, error)
}

// lastSpecial is the last of core's ids that are no person, no chat and no message of anybody's.
const lastSpecial = 9

// chat is the part of core's FullChat that decides whether a bot may write there.
type chat struct {
	Type        string   `json:"chatType"`
	Encrypted   bool     `json:"isEncrypted"`
	SelfTalk    bool     `json:"isSelfTalk"`
	Device      bool     `json:"isDeviceChat"`
	Contacts    []uint32 `json:"contactIds"`
	SelfInGroup bool     `json:"selfInGroup"`
}

// maySend allows the chats of the run, and of others those that a consenting contact is in: what is asked of core is remembered
// for the run.
func (g *Gateway) maySend(ctx context.Context, id uint32) error {
	g.mu.Lock()
	allowed, known := g.chats[id]
	g.mu.Unlock()
	if !known && id > lastSpecial && g.opts.Consent != nil {
		var err error
		if allowed, err = g.consented(ctx, id); err != nil {
			return err
		}
		g.mu.Lock()
		g.chats[id] = allowed
		g.mu.Unlock()
	}
	if !allowed {
		return &Error{CodeRefused, fmt.Sprintf("chat %d is not the one that woke the bot, and nobody in it has written to the bot, or all have stopped it: a bot writes only to those who wrote to it", id)}
	}
	return nil
}

// consented looks at who is in a chat. A channel of the bot's own has only those who joined it. Of a group it is enough that one
// has consented, who brought the bot there or was brought by it; a bot can bring no others (mayAdd).
func (g *Gateway) consented(ctx context.Context, id uint32) (bool, error) {
	raw, err := g.ask(ctx, "get_full_chat_by_id", []any{g.opts.Account, id})
	if err != nil {
		return false, err
	}
	var c chat
	if err := json.Unmarshal(raw, &c); err != nil {
		return false, fmt.Errorf("chat %d: core's answer is not one", id)
	}
	switch {
	case !c.Encrypted || c.SelfTalk || c.Device:
		return false, nil
	case c.Type == "OutBroadcast":
		return true, nil
	case c.Type != "Single" && (c.Type != "Group" || !c.SelfInGroup):
		return false, nil
	}
	others := 0
	for _, contact := range c.Contacts {
		if contact <= lastSpecial {
			continue
		}
		others++
		if others > maxAsked {
			break
		}
		if ok, err := g.consents(ctx, contact); ok || err != nil {
			return ok, err
		}
	}
	return others == 0 && c.Type == "Group", nil // one that the bot has just made
}

// maxAsked bounds the members of a group whose consent is looked up: each is a call to core.
const maxAsked = 50

func (g *Gateway) mayAdd(ctx context.Context, contact uint32) error {
	ok, err := false, error(nil)
	if g.opts.Consent != nil {
		ok, err = g.consents(ctx, contact)
	}
	if err == nil && !ok {
		err = &Error{CodeRefused, fmt.Sprintf("contact %d has not written to the bot directly, or has stopped it: have it open the bot's invite link first", contact)}
	}
	return err
}

func (g *Gateway) consents(ctx context.Context, contact uint32) (bool, error) {
	g.mu.Lock()
	ok, known := g.consent[contact]
	g.mu.Unlock()
	if known || contact <= lastSpecial {
		return ok, nil
	}
	fingerprint, err := g.fingerprint(ctx, contact)
	if err != nil {
		return false, err
	}
	if fingerprint != "" {
		if ok, err = g.opts.Consent.Consents(ctx, fingerprint); err != nil {
			return false, err
		}
	}
	g.mu.Lock()
	g.consent[contact] = ok
	g.mu.Unlock()
	return ok, nil
}

// fingerprint reads a contact's out of core's text on its encryption, which has the account's own besides. A contact whose name
// would make it ambiguous has none.
func (g *Gateway) fingerprint(ctx context.Context, contact uint32) (string, error) {
	raw, err := g.ask(ctx, "get_contact_encryption_info", []any{g.opts.Account, contact})
	if err != nil {
		return "", err
	}
	var text string
	if err := json.Unmarshal(raw, &text); err != nil {
		return "", fmt.Errorf("contact %d: core's answer is no text", contact)
	}
	found := ""
	for _, f := range fingerprintsIn(text) {
		if strings.EqualFold(f, g.opts.Fingerprint) || f == found {
			continue
		}
		if found != "" {
			return "", nil
		}
		found = f
	}
	return found, nil
}

// fingerprintsIn finds groups of four hexadecimal digits that together are 40 or 64.
func fingerprintsIn(text string) []string {
	groups := regexp.MustCompile(`(?:[0-9A-Fa-f]{4}\s+){9}[0-9A-Fa-f]{4}(?:(?:\s+[0-9A-Fa-f]{4}){6})?`)
	var list []string
	for _, m := range groups.FindAllString(text, -1) {
		list = append(list, strings.ToUpper(strings.Join(strings.Fields(m), "")))
	}
	return list
}

// mayTouch allows the bot's own messages of this run and those that lie in a chat that it may write to.
func (g *Gateway) mayTouch(ctx context.Context, id uint32) error {
	g.mu.Lock()
	own := g.own[id]
	g.mu.Unlock()
	if own {
		return nil
	}
	chat, err := g.chatOf(ctx, id)
	if err != nil {
		return err
	}
	return g.maySend(ctx, chat)
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
