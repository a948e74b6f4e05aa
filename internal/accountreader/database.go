package accountreader

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"

	_ "modernc.org/sqlite" // registers the driver "sqlite"

	"mayfly/internal/bot"
)

// The schemas that the queries below were tested with, first and last.
const (
	firstSchema = 159 // core 2.57
	lastSchema  = 169 // core 2.65
)

// ErrSchema says that the database's schema is not one of those that are known.
var ErrSchema = errors.New("unknown schema of core's database")

// account is one transaction on an open dc.db.
type account struct {
	tx     *sql.Tx
	schema int
}

// withAccount runs f in a read transaction on the one account in dir.
func withAccount(ctx context.Context, dir string, f func(account) error) error {
	file, err := findDatabase(dir)
	if err != nil {
		return err
	}
	db, err := sql.Open("sqlite", dataSource(file))
	if err != nil {
		return fmt.Errorf("open %s: %w", file, err)
	}
	err = inTransaction(ctx, db, f)
	if closed := db.Close(); err == nil {
		err = closed
	}
	if err != nil {
		return fmt.Errorf("%s: %w", filepath.Base(file), err)
	}
	return nil
}

// dataSource names the file and how to open it: never created; no writes by SQL; the schema's own expressions may not call
// anything with side effects. The file is opened for writing all the same, since SQLite must keep its place in dc.db-shm, and
// whoever closes last removes the write-ahead log.
func dataSource(file string) string {
	options := url.Values{"mode": {"rw"}, "_pragma": {
		"busy_timeout(2000)", "query_only(1)", "trusted_schema(0)", "cell_size_check(1)", "temp_store(2)",
	}}
	return (&url.URL{Scheme: "file", OmitHost: true, Path: file, RawQuery: options.Encode()}).String()
}

func inTransaction(ctx context.Context, db *sql.DB, f func(account) error) error {
	db.SetMaxOpenConns(1)
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback() // nothing is written
	a := account{tx: tx}
	there, err := a.isTable(ctx, "config")
	if err != nil {
		return err
	}
	if !there {
		return fmt.Errorf("%w: it has no table config", ErrSchema)
	}
	const query = `SELECT CAST(value AS INTEGER) FROM config WHERE keyname = 'dbversion'`
	if err := tx.QueryRowContext(ctx, query).Scan(&a.schema); err != nil {
		return fmt.Errorf("config.dbversion: %w", err)
	}
	return f(a)
}

// findDatabase looks for the only <dir>/*/dc.db.
func findDatabase(dir string) (string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return "", fmt.Errorf("accounts folder: %w", err)
	}
	var found []string
	for _, e := range entries {
		file := filepath.Join(dir, e.Name(), "dc.db")
		if info, err := os.Lstat(file); e.IsDir() && err == nil && info.Mode().IsRegular() {
			found = append(found, file)
		}
	}
	if len(found) != 1 {
		return "", fmt.Errorf("accounts folder %s: found %d accounts, want one", dir, len(found))
	}
	return found[0], nil
}

func (a account) known() bool { return firstSchema <= a.schema && a.schema <= lastSchema }

func readPending(ctx context.Context, dir string) (bot.Pending, error) {
	var p bot.Pending
	err := withAccount(ctx, dir, func(a account) error {
		if !a.known() {
			return fmt.Errorf("%w: %d, known are %d to %d: install a core that the documentation names", ErrSchema, a.schema, firstSchema, lastSchema)
		}
		for _, q := range []struct {
			sum   *int
			table string
			where string
		}{
			{&p.SMTP, "smtp", "1"},
			{&p.SMTP, "smtp2", "1"},
			{&p.SMTP, "smtp_mdns", "1"},
			{&p.SMTP, "imap_send", "1"},
			{&p.Status, "smtp_status_updates", "1"},
			{&p.Download, "download", "1"},
			{&p.PostMsgs, "available_post_msgs", "1"},
			{&p.IMAPQueue, "imap", "target <> folder"},
			{&p.IMAPQueue, "imap_markseen", "1"},
		} {
			n, err := a.count(ctx, q.table, q.where)
			if err != nil {
				return err
			}
			*q.sum += n
		}
		return nil
	})
	return p, err
}

// count counts rows up to maxCount. The early known schemas have no smtp2.
func (a account) count(ctx context.Context, table, where string) (int, error) {
	there, err := a.isTable(ctx, table)
	if err != nil {
		return 0, err
	}
	if !there && table == "smtp2" {
		return 0, nil
	}
	if !there {
		return 0, fmt.Errorf("%w: it has no table %s", ErrSchema, table)
	}
	query := fmt.Sprintf("SELECT count(*) FROM (SELECT 1 FROM %s WHERE %s LIMIT %d)", table, where, maxCount)
	var n int
	if err := a.tx.QueryRowContext(ctx, query).Scan(&n); err != nil {
		return 0, fmt.Errorf("count %s: %w", table, err)
	}
	return n, nil
}

// isTable tells a table from a view, which could make rows up without end.
func (a account) isTable(ctx context.Context, name string) (bool, error) {
	var n int
	err := a.tx.QueryRowContext(ctx, "SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name = ?", name).Scan(&n)
	if err != nil {
		return false, fmt.Errorf("schema: %w", err)
	}
	return n == 1, nil
}

// The queries of a state. Small keys come first, so that a few huge ones cannot push the others over maxTotal. What core never
// writes (a key that is not a blob, a token that is not a word) is left out.
const (
	selfKeysQuery = `SELECT private_key FROM keypairs WHERE typeof(private_key) = 'blob' AND length(private_key) <= ?
		ORDER BY id = (SELECT CAST(value AS INTEGER) FROM config WHERE keyname = 'key_id') DESC, id LIMIT ?`
	publicKeysQuery = `SELECT public_key FROM public_keys WHERE typeof(public_key) = 'blob' AND length(public_key) <= ?
		ORDER BY length(public_key), id LIMIT ?`
	inviteNumbersQuery = `SELECT token FROM tokens WHERE namespc = 100 AND typeof(token) = 'text' AND length(token) <= ? ORDER BY id DESC LIMIT ?`
	authTokensQuery    = `SELECT token FROM tokens WHERE namespc = 110 AND typeof(token) = 'text' AND length(token) <= ? ORDER BY id DESC LIMIT ?`
	secretsQuery       = `SELECT secret FROM broadcast_secrets WHERE typeof(secret) = 'text' AND length(secret) <= ? ORDER BY chat_id LIMIT ?`
)

func readState(ctx context.Context, dir string) (bot.AccountState, error) {
	var s bot.AccountState
	err := withAccount(ctx, dir, func(a account) error {
		s.Schema, s.Readable = a.schema, a.known()
		left := maxTotal
		for _, l := range []struct {
			table, query string
			size, count  int
			add          func([]byte)
		}{
			{"keypairs", selfKeysQuery, maxKey, maxSelfKeys, func(b []byte) { s.SelfKeys = append(s.SelfKeys, b) }},
			{"tokens", inviteNumbersQuery, maxToken, maxTokens, addWord(&s.InviteNumbers)},
			{"tokens", authTokensQuery, maxToken, maxTokens, addWord(&s.AuthTokens)},
			{"broadcast_secrets", secretsQuery, maxToken, maxTokens, addWord(&s.BroadcastSecrets)},
			{"public_keys", publicKeysQuery, maxKey, maxPublicKeys, func(b []byte) { s.PublicKeys = append(s.PublicKeys, b) }},
		} {
			complete, err := a.list(ctx, l.table, l.query, l.size, l.count, &left, l.add)
			if err != nil && a.known() {
				return err
			}
			s.Readable = s.Readable && complete
		}
		return nil
	})
	return s, err
}

func addWord(words *[]string) func([]byte) {
	return func(b []byte) {
		if isWord(string(b)) {
			*words = append(*words, string(b))
		}
	}
}

// list gives the rows of a query to add. It is not complete where there are more than count rows or left bytes, or where core
// keeps no such table.
func (a account) list(ctx context.Context, table, query string, size, count int, left *int, add func([]byte)) (bool, error) {
	there, err := a.isTable(ctx, table)
	if err != nil || !there {
		return false, err
	}
	rows, err := a.tx.QueryContext(ctx, query, size, count+1)
	if err != nil {
		return false, fmt.Errorf("%s: %w", table, err)
	}
	defer rows.Close()
	for n := 0; rows.Next(); n++ {
		var value []byte
		if err := rows.Scan(&value); err != nil {
			return false, fmt.Errorf("%s: %w", table, err)
		}
		if *left -= len(value); n == count || *left < 0 {
			return false, nil
		}
		add(value)
	}
	if err := rows.Err(); err != nil {
		return false, fmt.Errorf("%s: %w", table, err)
	}
	return true, nil
}
