package ledger

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"mayfly/internal/bot"
)

// Bot is an installed bot.
type Bot struct {
	Address     bot.Address
	Manifest    bot.Manifest
	Digest      string          // of the bundle, hexadecimal
	Previous    string          // of the bundle that ran before this one; empty where there was none. Install keeps it
	Request     Cursor          // the message in the Bot folder that brought the bundle; zero where that is not known
	Fingerprint bot.Fingerprint // of the bot's own key; empty until core has made it
	Invite      string          // invite link; empty until core has made it
	Account     bot.Generation  // of core's account
	Storage     bot.Generation  // of the bot's folder
	UIDValidity uint32          // of the minirelay's INBOX, RFC 9051; constant as long as the bot is installed
	UIDNext     uint32          // of the minirelay's INBOX
	State       bot.AccountState
	Installed   time.Time
	Updated     time.Time
}

// Generations are the states on disk that the ledger names for one bot; all others may be deleted.
type Generations = struct{ Account, Storage bot.Generation }

const selectBots = `SELECT address, manifest, digest, fingerprint, invite, account, storage, uid_validity, uid_next,
	coalesce(state, '{}'), installed, updated, previous, request_validity, request_uid FROM bots LEFT JOIN states ON states.bot = bots.address `

// Bots returns all installed bots, by address.
func (l *Ledger) Bots(ctx context.Context) ([]Bot, error) {
	rows, err := l.db.QueryContext(ctx, selectBots+`ORDER BY address`)
	bots, err := collect(rows, err, scanBot)
	return bots, l.explain("bots", err)
}

// Bot returns one bot. The error wraps ErrNotFound where it is not installed.
func (l *Ledger) Bot(ctx context.Context, addr bot.Address) (Bot, error) {
	rows, err := l.db.QueryContext(ctx, selectBots+`WHERE address = ?`, addr)
	bots, err := collect(rows, err, scanBot)
	if err == nil && len(bots) == 0 {
		err = fmt.Errorf("%w: no bot %s", ErrNotFound, addr)
	}
	if err != nil {
		return Bot{}, l.explain("bot", err)
	}
	return bots[0], nil
}

func scanBot(rows *sql.Rows) (Bot, error) {
	var b Bot
	var manifest, state string
	var installed, updated int64
	err := rows.Scan(&b.Address, &manifest, &b.Digest, &b.Fingerprint, &b.Invite, &b.Account, &b.Storage, &b.UIDValidity,
		&b.UIDNext, &state, &installed, &updated, &b.Previous, &b.Request.UIDValidity, &b.Request.UID)
	if err != nil {
		return b, err
	}
	b.Installed, b.Updated = fromMicro(installed), fromMicro(updated)
	return b, errors.Join(json.Unmarshal([]byte(manifest), &b.Manifest), json.Unmarshal([]byte(state), &b.State))
}

// Install records a new bot, or new code and manifest for an installed one. On an update the fields Fingerprint, Invite,
// Account, Storage, UIDValidity, UIDNext, State and Installed stay as they are where the given ones are zero. For a new bot
// UIDValidity and UIDNext are 1 where they are zero. Times that are zero are now. Where the digest is a new one, the digest before
// becomes Previous, and the install counts (Installs). The bot's Schedules become those of the manifest; those that were there keep what
// is known of them.
func (l *Ledger) Install(ctx context.Context, b Bot) error {
	return l.write(ctx, "install "+string(b.Address), func(tx *sql.Tx) error {
		if b.Updated.IsZero() {
			b.Updated = time.Now()
		}
		if err := countInstall(ctx, tx, b); err != nil {
			return err
		}
		return install(ctx, tx, b)
	})
}

// countedFor is how long an install is remembered.
const countedFor = 24 * time.Hour

// countInstall remembers an install unless it brings the bundle that is there already.
func countInstall(ctx context.Context, tx *sql.Tx, b Bot) error {
	if _, err := tx.ExecContext(ctx, `DELETE FROM installs WHERE at < ?`, micro(b.Updated.Add(-countedFor))); err != nil {
		return err
	}
	_, err := tx.ExecContext(ctx, `INSERT INTO installs (address, at) SELECT :address, :at
		WHERE NOT EXISTS (SELECT 1 FROM bots WHERE address = :address AND digest = :digest)`,
		sql.Named("address", b.Address), sql.Named("digest", b.Digest), sql.Named("at", micro(b.Updated)))
	return err
}

// Installs returns when bots were installed or got a new bundle on this host since a time within the last 24 hours, oldest
// first. An uninstall takes nothing away.
func (l *Ledger) Installs(ctx context.Context, since time.Time) ([]time.Time, error) {
	rows, err := l.db.QueryContext(ctx, `SELECT at FROM installs WHERE at >= ? ORDER BY at`, micro(since))
	times, err := collect(rows, err, func(rows *sql.Rows) (time.Time, error) {
		var at int64
		err := rows.Scan(&at)
		return fromMicro(at), err
	})
	return times, l.explain("installs", err)
}

// CountBots returns how many bots are installed.
func (l *Ledger) CountBots(ctx context.Context) (int, error) {
	var n int
	err := l.db.QueryRowContext(ctx, `SELECT count(*) FROM bots`).Scan(&n)
	return n, l.explain("count bots", err)
}

func install(ctx context.Context, tx *sql.Tx, b Bot) error {
	manifest, err := json.Marshal(b.Manifest)
	if err != nil {
		return err
	}
	_, err = tx.ExecContext(ctx, `INSERT INTO bots (address, manifest, digest, fingerprint, invite, account, storage,
			uid_validity, uid_next, installed, updated, request_validity, request_uid)
		VALUES (:address, :manifest, :digest, :fingerprint, :invite, :account, :storage, max(1, :uid_validity),
			max(1, :uid_next), coalesce(nullif(:installed, 0), :updated), :updated, :request_validity, :request_uid)
		ON CONFLICT (address) DO UPDATE SET manifest = :manifest, digest = :digest,
			previous = iif(digest = :digest, previous, digest),
			request_validity = :request_validity, request_uid = :request_uid,
			fingerprint = coalesce(nullif(:fingerprint, ''), fingerprint),
			invite = coalesce(nullif(:invite, ''), invite),
			account = coalesce(nullif(:account, 0), account),
			storage = coalesce(nullif(:storage, 0), storage),
			uid_validity = coalesce(nullif(:uid_validity, 0), uid_validity),
			uid_next = coalesce(nullif(:uid_next, 0), uid_next),
			installed = coalesce(nullif(:installed, 0), installed),
			updated = :updated`,
		sql.Named("address", b.Address), sql.Named("manifest", string(manifest)), sql.Named("digest", b.Digest),
		sql.Named("fingerprint", b.Fingerprint), sql.Named("invite", b.Invite), sql.Named("account", b.Account),
		sql.Named("storage", b.Storage), sql.Named("uid_validity", b.UIDValidity), sql.Named("uid_next", b.UIDNext),
		sql.Named("installed", micro(b.Installed)), sql.Named("updated", micro(b.Updated)),
		sql.Named("request_validity", b.Request.UIDValidity), sql.Named("request_uid", b.Request.UID))
	if err == nil {
		err = setSchedules(ctx, tx, b.Address, b.Manifest.Schedules)
	}
	if err != nil || isZero(b.State) {
		return err
	}
	return saveState(ctx, tx, b.Address, b.State)
}

func isZero(s bot.AccountState) bool {
	return s.Schema == 0 && !s.Readable && len(s.SelfKeys)+len(s.PublicKeys)+len(s.InviteNumbers)+len(s.AuthTokens)+
		len(s.BroadcastSecrets) == 0
}

// saveState writes only what differs: most sessions meet no new key.
func saveState(ctx context.Context, tx *sql.Tx, addr bot.Address, s bot.AccountState) error {
	text, err := json.Marshal(s)
	if err != nil {
		return err
	}
	_, err = tx.ExecContext(ctx, `INSERT INTO states (bot, state) VALUES (?, ?)
		ON CONFLICT (bot) DO UPDATE SET state = excluded.state WHERE state <> excluded.state`, addr, string(text))
	return err
}

// Remove forgets a bot and all that belongs to it: jobs, runs, unsent mail. A session of it that is under way can no longer
// be committed. The account stays watched, and its Folder says that it had a bot.
func (l *Ledger) Remove(ctx context.Context, addr bot.Address) error {
	return l.write(ctx, "remove "+string(addr), func(tx *sql.Tx) error {
		res, err := tx.ExecContext(ctx, `DELETE FROM bots WHERE address = ?`, addr)
		if err := touched(res, err, fmt.Errorf("%w: no bot %s", ErrNotFound, addr)); err != nil {
			return err
		}
		_, err = tx.ExecContext(ctx, `INSERT INTO folders (address, uid_validity, uid, had_bot) VALUES (?, 0, 0, 1)
			ON CONFLICT (address) DO UPDATE SET had_bot = 1`, addr)
		return err
	})
}

// Generations returns what the ledger names on disk, for the sweep at the start.
func (l *Ledger) Generations(ctx context.Context) (map[bot.Address]Generations, error) {
	type named struct {
		addr bot.Address
		g    Generations
	}
	rows, err := l.db.QueryContext(ctx, `SELECT address, account, storage FROM bots`)
	all, err := collect(rows, err, func(rows *sql.Rows) (n named, err error) {
		return n, rows.Scan(&n.addr, &n.g.Account, &n.g.Storage)
	})
	if err != nil {
		return nil, l.explain("generations", err)
	}
	m := make(map[bot.Address]Generations, len(all))
	for _, n := range all {
		m[n.addr] = n.g
	}
	return m, nil
}

// Account is a chatmail account whose Bot folder is watched, though no bot may be installed in it yet.
type Account struct {
	Address bot.Address
	Added   time.Time
}

// AddAccount starts to watch an account; one that is watched already stays as it is.
func (l *Ledger) AddAccount(ctx context.Context, addr bot.Address) error {
	return l.write(ctx, "add account "+string(addr), func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `INSERT INTO accounts (address, added) VALUES (?, ?) ON CONFLICT DO NOTHING`,
			addr, micro(time.Now()))
		return err
	})
}

// Accounts returns the watched accounts, oldest first.
func (l *Ledger) Accounts(ctx context.Context) ([]Account, error) {
	rows, err := l.db.QueryContext(ctx, `SELECT address, added FROM accounts ORDER BY added, address`)
	all, err := collect(rows, err, func(rows *sql.Rows) (Account, error) {
		var a Account
		var added int64
		err := rows.Scan(&a.Address, &added)
		a.Added = fromMicro(added)
		return a, err
	})
	return all, l.explain("accounts", err)
}

// RemoveAccount stops to watch an account. A bot that is installed in it stays installed.
func (l *Ledger) RemoveAccount(ctx context.Context, addr bot.Address) error {
	return l.write(ctx, "remove account "+string(addr), func(tx *sql.Tx) error {
		res, err := tx.ExecContext(ctx, `DELETE FROM accounts WHERE address = ?`, addr)
		return touched(res, err, fmt.Errorf("%w: no account %s", ErrNotFound, addr))
	})
}
