package install

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"mayfly/internal/bot"
	"mayfly/internal/bundle"
	"mayfly/internal/ledger"
)

// Who may install.
const (
	Everyone = "everyone" // whose account is watched
	Listed   = "listed"   // accounts and domains of Rules.Listed
	Nobody   = "nobody"
)

// Rules are the operator's. They hold for new bots, updates and rollbacks, but not for the same bundle again, and never for
// an uninstall. What is installed already stays.
type Rules struct {
	Who     string   // Everyone, Listed or Nobody; anything else is Nobody
	Listed  []string // addresses, and domains as in "@example.org", in lower case
	PerHour int      // new bots and new versions within an hour, on the whole host; 0: no limit
	Bots    int      // installed on the host; 0: no limit
	Disk    int64    // bytes of all that bots have on the host's disk, with the new bundle; 0: no limit
}

// broken returns the rules that an install would break, each with what the author can do. The bundle would take size bytes
// that are not on the disk yet.
func (in *Installer) broken(ctx context.Context, addr bot.Address, before ledger.Bot, size int64) (bundle.Problems, error) {
	var all bundle.Problems
	if p := in.Rules.who(addr); p != nil {
		all = append(all, *p)
	}
	for _, rule := range []func(context.Context, ledger.Bot, int64) (*bundle.Problem, error){in.perHour, in.bots, in.disk} {
		p, err := rule(ctx, before, size)
		if err != nil {
			return nil, err
		}
		if p != nil {
			all = append(all, *p)
		}
	}
	return all, nil
}

func rule(key, message, fix string) *bundle.Problem {
	return &bundle.Problem{File: "[install] " + key, Message: message, Fix: fix}
}

func (r Rules) who(addr bot.Address) *bundle.Problem {
	listed := slices.Contains(r.Listed, string(addr)) || slices.Contains(r.Listed, "@"+addr.Domain())
	switch {
	case r.Who == Everyone, r.Who == Listed && listed:
		return nil
	case r.Who == Listed:
		return rule("who", fmt.Sprintf("%s is not on the list of those who may install on this host", addr), "ask the operator to list it")
	default:
		return rule("who", "nobody may install on this host", "ask the operator")
	}
}

func (in *Installer) perHour(ctx context.Context, _ ledger.Bot, _ int64) (*bundle.Problem, error) {
	limit := in.Rules.PerHour
	if limit == 0 {
		return nil, nil
	}
	times, err := in.Ledger.Installs(ctx, in.Now().Add(-time.Hour))
	if err != nil || len(times) < limit {
		return nil, err
	}
	free := times[len(times)-limit].Add(time.Hour + time.Minute).UTC().Truncate(time.Minute)
	return rule("installs_per_hour", fmt.Sprintf("%d bots or new versions were installed on this host within an hour, and the operator allows %d", len(times), limit),
		"put the message into the folder again after "+free.Format("2006-01-02 15:04 MST")+", or ask the operator"), nil
}

func (in *Installer) bots(ctx context.Context, before ledger.Bot, _ int64) (*bundle.Problem, error) {
	if in.Rules.Bots == 0 || before.Digest != "" {
		return nil, nil
	}
	n, err := in.Ledger.CountBots(ctx)
	if err != nil || n < in.Rules.Bots {
		return nil, err
	}
	return rule("bots", fmt.Sprintf("this host has %d bots, and the operator allows %d", n, in.Rules.Bots),
		"ask the operator, or try again when another bot was uninstalled"), nil
}

func (in *Installer) disk(_ context.Context, _ ledger.Bot, size int64) (*bundle.Problem, error) {
	if in.Rules.Disk == 0 || size == 0 {
		return nil, nil
	}
	used, err := in.Bundles.Usage()
	if err != nil || used+size <= in.Rules.Disk {
		return nil, err
	}
	return rule("disk", fmt.Sprintf("the bots of this host take %.1f MB, this bundle would take %.1f MB more, and the operator allows %s",
		float64(used)/1e6, float64(size)/1e6, bundle.FormatSize(in.Rules.Disk)), "make the bundle smaller, or ask the operator"), nil
}

// ParseListed checks an entry of Rules.Listed, and writes it as it is compared.
func ParseListed(entry string) (string, error) {
	if domain, ok := strings.CutPrefix(entry, "@"); ok {
		whole, err := bot.ParseAddress("anybody@" + domain)
		if err != nil {
			return "", fmt.Errorf(`%q: want an address, or a domain as in "@example.org"`, entry)
		}
		return "@" + whole.Domain(), nil
	}
	addr, err := bot.ParseAddress(entry)
	return string(addr), err
}
