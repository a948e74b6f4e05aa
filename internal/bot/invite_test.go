package bot

import (
	"strings"
	"testing"
)

// TestJoinableInvite: links of old apps would be answered in cleartext, and a group is nobody.
func TestJoinableInvite(t *testing.T) {
	key := strings.Repeat("AB", 20)
	for link, want := range map[string]bool{
		"https://i.delta.chat/#" + key + "&v=3&i=n&s=token&a=u%40x.y&n=Ada":       true,
		"https://i.delta.chat/#" + key + "&i=n&s=token&a=u%40x.y&n=Ada":           false,
		"https://i.delta.chat/#" + key + "&v=3&i=n&a=u%40x.y":                     false,
		"https://i.delta.chat/#" + key + "&v=3&x=id&i=n&s=token&a=u%40x.y&g=Club": false,
		"https://i.delta.chat/#" + key + "&v=3&x=id&s=token&a=u%40x.y&b=Channel":  false,
		"https://i.delta.chat/#" + key + "&v=3;s=token":                           false,
		"https://i.delta.chat/#" + key:                                            false,
		"mailto:ada@example.org":                                                  false,
		"":                                                                        false,
	} {
		inviter, token, ok := JoinableInvite(link)
		if ok != want || ok && (inviter != Fingerprint(key) || token != "token") {
			t.Errorf("%s: %s %q %v", link, inviter, token, ok)
		}
	}
}
