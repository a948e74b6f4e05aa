package session

import "mayfly/internal/storage"

// AccountRules are those by which core's account is kept after a session.
func AccountRules(l Limits) storage.Rules { return accountRules(l) }
