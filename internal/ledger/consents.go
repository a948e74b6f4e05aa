package ledger

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"mayfly/internal/bot"
)

// Word is what a contact has said about hearing from a bot.
type Word struct {
	Contact bot.Fingerprint
	Address bot.Address // from which it came, as the relay has it; empty where that is not known
	Stop    bool        // false: go on
}

// Consents reports whether a contact has written to a bot directly and has not stopped it since.
func (l *Ledger) Consents(ctx context.Context, addr bot.Address, contact bot.Fingerprint) (bool, error) {
	var n int
	err := l.db.QueryRowContext(ctx, `SELECT count(*) FROM consents WHERE bot = ? AND contact = ? AND stopped = 0`, addr, contact).Scan(&n)
	return n > 0, l.explain("consents", err)
}

// Stopped reports whether a contact has stopped a bot. Where it has, and writes from another address now, its stop is from then on
// one of that address: mail to the contact will go there.
func (l *Ledger) Stopped(ctx context.Context, addr bot.Address, contact bot.Fingerprint, from bot.Address) (bool, error) {
	var known bot.Address
	err := l.db.QueryRowContext(ctx, `SELECT address FROM consents WHERE bot = ? AND contact = ? AND stopped <> 0`, addr, contact).Scan(&known)
	if errors.Is(err, sql.ErrNoRows) {
		return false, nil
	}
	if err != nil || from == "" || from == known {
		return err == nil, l.explain("stopped", err)
	}
	return true, l.write(ctx, "stopped", func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `UPDATE consents SET address = ? WHERE bot = ? AND contact = ?`, from, addr, contact)
		return err
	})
}

// StoppedAddresses returns those of some addresses to which a bot's mail must not go. Several contacts, which are keys, may have
// written from one address: the last word that came from it holds. Every direct message of a contact that has not stopped the bot is
// such a word.
func (l *Ledger) StoppedAddresses(ctx context.Context, addr bot.Address, of []bot.Address) ([]bot.Address, error) {
	var stopped []bot.Address
	for _, address := range of {
		var at int64
		err := l.db.QueryRowContext(ctx, `SELECT stopped FROM consents WHERE bot = ? AND address = ?
			ORDER BY max(heard, stopped) DESC, stopped LIMIT 1`, addr, address).Scan(&at)
		if err != nil && !errors.Is(err, sql.ErrNoRows) {
			return nil, l.explain("stopped addresses", err)
		}
		if at != 0 {
			stopped = append(stopped, address)
		}
	}
	return stopped, nil
}

// AddressOf returns the address from which a contact wrote to a bot last; empty where it never did.
func (l *Ledger) AddressOf(ctx context.Context, addr bot.Address, contact bot.Fingerprint) (bot.Address, error) {
	var address bot.Address
	err := l.db.QueryRowContext(ctx, `SELECT address FROM consents WHERE bot = ? AND contact = ?`, addr, contact).Scan(&address)
	if errors.Is(err, sql.ErrNoRows) {
		return "", nil
	}
	return address, l.explain("address of a contact", err)
}

// ContactAt returns the contact that wrote to a bot last from an address; empty where none did.
func (l *Ledger) ContactAt(ctx context.Context, addr, address bot.Address) (bot.Fingerprint, error) {
	var contact bot.Fingerprint
	err := l.db.QueryRowContext(ctx, `SELECT contact FROM consents WHERE bot = ? AND address = ?
		ORDER BY max(heard, stopped) DESC LIMIT 1`, addr, address).Scan(&contact)
	if errors.Is(err, sql.ErrNoRows) {
		return "", nil
	}
	return contact, l.explain("contact at an address", err)
}

// consent notes who wrote to the bot directly. Who has stopped it has to resume by word.
func consent(ctx context.Context, tx *sql.Tx, addr bot.Address, contact bot.Fingerprint, from bot.Address, at time.Time) error {
	if contact == "" {
		return nil
	}
	_, err := tx.ExecContext(ctx, `INSERT INTO consents (bot, contact, since, heard, address) VALUES (?1, ?2, ?3, ?3, ?4)
		ON CONFLICT DO UPDATE SET heard = ?3, address = coalesce(nullif(?4, ''), address) WHERE stopped = 0`, addr, contact, micro(at), from)
	return err
}

// takeWord notes a stop or its end. Who stops a bot twice has stopped it since the second time: another may have written from the same
// address in between.
func takeWord(ctx context.Context, tx *sql.Tx, addr bot.Address, w Word, at time.Time) error {
	if w.Contact == "" {
		return errors.New("a word of nobody")
	}
	stopped := int64(0)
	if w.Stop {
		stopped = micro(at)
	}
	_, err := tx.ExecContext(ctx, `INSERT INTO consents (bot, contact, since, heard, stopped, address) VALUES (?1, ?2, ?3, ?3, ?4, ?5)
		ON CONFLICT DO UPDATE SET heard = iif(?4, heard, ?3), stopped = ?4, address = coalesce(nullif(?5, ''), address)`,
		addr, w.Contact, micro(at), stopped, w.Address)
	return err
}

// Answer is what the host does in a bot's name without a session.
type Answer struct {
	Bot      bot.Address
	Jobs     []int64    // that it finishes: all of them accepted; may be none
	Word     *Word      // a contact's about consent; may be nil
	Outgoing []Outgoing // goes to stopped contacts too; as in Commit
	At       time.Time
}

// Answer makes it true, whole, in one transaction. It is refused as Commit is.
func (l *Ledger) Answer(ctx context.Context, a Answer) error {
	return l.write(ctx, "answer for "+string(a.Bot), func(tx *sql.Tx) error { return l.answer(ctx, tx, a) })
}

func (l *Ledger) answer(ctx context.Context, tx *sql.Tx, a Answer) error {
	if err := installed(ctx, tx, a.Bot); err != nil {
		return err
	}
	if err := finish(ctx, tx, Commit{Bot: a.Bot, Jobs: a.Jobs}); err != nil {
		return err
	}
	if a.Word != nil {
		if err := takeWord(ctx, tx, a.Bot, *a.Word, a.At); err != nil {
			return fmt.Errorf("%s: %w", a.Bot, err)
		}
	}
	for _, o := range a.Outgoing {
		o.Exempt = true
		if err := enqueue(ctx, tx, a.Bot, o); err != nil {
			return err
		}
	}
	return nil
}
