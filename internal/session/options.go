package session

import (
	"context"
	"encoding/json"
	"slices"

	"mayfly/internal/bot"
	"mayfly/internal/gateway"
)

// gatewayOptions are those of every run.
func (p *program) gatewayOptions(c *coreSide, o occasion, files gateway.Files) gateway.Options {
	limits := gateway.DefaultLimits()
	if most := p.bot.Manifest.Sending.Within(p.r.Limits.Sending).Attachment; most > 0 {
		limits.File = most
	}
	return gateway.Options{
		Core: c.client, Files: files, Account: uint32(c.account), Chats: o.chats(),
		CorePaths: c.corePaths(), Limits: limits, Quota: p.sending, Notify: func(string, json.RawMessage) {},
		Invite: p.bot.Invite, Fingerprint: string(p.bot.Fingerprint), Home: bundleDir, Temporary: tmpDir,
		Consent: consent{p.r.Ledger, p.bot.Address, append(slices.Clone(c.earlier), c.wrote)},
	}
}

// chats are those that have woken the bot.
func (o occasion) chats() []uint32 {
	if o.schedule != nil {
		return nil
	}
	return []uint32{uint32(o.msg.ChatID)}
}

// consent is that of a bot's contacts, and of those who have written in this session, which the ledger will know when it is committed.
type consent struct {
	ledger  Ledger
	address bot.Address
	writers []bot.Fingerprint
}

// Consents implements gateway.Consent.
func (c consent) Consents(ctx context.Context, fingerprint string) (bool, error) {
	if fingerprint != "" && slices.Contains(c.writers, bot.Fingerprint(fingerprint)) {
		return true, nil
	}
	return c.ledger.Consents(ctx, c.address, bot.Fingerprint(fingerprint))
}
