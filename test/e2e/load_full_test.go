//go:build load

package e2e

import (
	"testing"
	"time"
)

// TestFullLoad is 2,000 mails to 50 bots, 5 of them hostile.
func TestFullLoad(t *testing.T) {
	compare(t, load{honest: 45, hostile: 5, mails: 40, patience: 20 * time.Minute})
}
