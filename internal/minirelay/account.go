package minirelay

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"strings"
	"sync"
	"time"

	"mayfly/internal/bot"
)

// account is one address of a Relay. Its password is not kept, only a salted hash: that is all the care that memory needs.
type account struct {
	address bot.Address
	salt    [16]byte
	hash    [sha256.Size]byte
	store   *store
	rate    bucket
}

func (a *account) hashOf(password string) [sha256.Size]byte {
	return sha256.Sum256(append(a.salt[:], password...))
}

func (r *Relay) account(address bot.Address) *account {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.accounts[address]
}

// login returns the account of a user who may have it. The first login of an address makes its account; a master login
// does not. It returns nil when the login is refused.
func (r *Relay) login(user, password string) *account {
	name, master, isMaster := strings.Cut(user, "*")
	address, err := bot.ParseAddress(name)
	if err != nil || address.Domain() != r.cfg.Domain {
		return nil
	}
	if isMaster {
		return r.masterLogin(address, master, password)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	a := r.accounts[address]
	if a == nil {
		return r.registerLocked(address, password)
	}
	hash := a.hashOf(password)
	if subtle.ConstantTimeCompare(hash[:], a.hash[:]) != 1 {
		return nil
	}
	return a
}

func (r *Relay) masterLogin(address bot.Address, user, password string) *account {
	given, want := sha256.Sum256([]byte(password)), sha256.Sum256([]byte(r.cfg.MasterPassword))
	if r.cfg.MasterPassword == "" || user != r.cfg.MasterUser || subtle.ConstantTimeCompare(given[:], want[:]) != 1 {
		return nil
	}
	return r.account(address)
}

func (r *Relay) registerLocked(address bot.Address, password string) *account {
	if !r.mayRegister(address.Local(), password) || len(r.accounts) >= r.cfg.MaxAccounts {
		return nil
	}
	// UIDVALIDITY is the time, as with Dovecot: it must not come back when a relay in memory starts anew.
	a := &account{address: address, store: newStore(uint32(time.Now().Unix()), r.cfg.Quota)}
	a.rate.tokens = float64(r.cfg.RateBurst)
	rand.Read(a.salt[:])
	a.hash = a.hashOf(password)
	a.store.create(inbox, 1)
	r.accounts[address] = a
	return a
}

func (r *Relay) mayRegister(local, password string) bool {
	for _, c := range local {
		if !strings.ContainsRune("abcdefghijklmnopqrstuvwxyz0123456789._-", c) {
			return false
		}
	}
	return len(local) >= r.cfg.LocalMin && len(local) <= r.cfg.LocalMax && len(password) >= r.cfg.PasswordMin
}

// bucket is a token bucket: perMinute tokens come in, and no more than burst are kept.
type bucket struct {
	mu     sync.Mutex
	tokens float64
	last   time.Time
}

// take takes a token if there is one.
func (b *bucket) take(now time.Time, perMinute, burst int) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.last.IsZero() {
		b.tokens = min(float64(burst), b.tokens+now.Sub(b.last).Minutes()*float64(perMinute))
	}
	b.last = now
	if b.tokens < 1 {
		return false
	}
	b.tokens--
	return true
}
