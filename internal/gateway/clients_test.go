package gateway

import (
	"strings"
	"testing"
)

// TestMessagesAsClientsWriteThem: they name every field of MessageData; what is not for bots must be empty.
func TestMessagesAsClientsWriteThem(t *testing.T) {
	g := New(Options{Limits: DefaultLimits()})
	for data, good := range map[string]bool{
		`{"text":"x","location":null,"overrideSenderName":null}`: true,
		`{"text":"x","location":[1,2]}`:                          false,
		`{"text":"x","overrideSenderName":"the operator"}`:       false,
		`{"text":"x","other":null}`:                              false,
	} {
		got, err := g.message(t.Context(), []byte(data))
		if (err == nil) != good || strings.Contains(string(got), "location") || strings.Contains(string(got), "override") {
			t.Errorf("%s: %s, %v", data, got, err)
		}
	}
}

// TestContactsAreThoseOfOlderCoresToo: clients that were made for them insist on every field.
func TestContactsAreThoseOfOlderCoresToo(t *testing.T) {
	g := New(Options{CorePaths: "/account/core/"})
	got, err := g.rewrite([]byte(`{"sender":{"displayName":"Ada","isKeyContact":true}}`))
	want := `{"sender":{"displayName":"Ada","isKeyContact":true,"isVerified":false,"nameAndAddr":"Ada","wasSeenRecently":false}}`
	if err != nil || string(got) != want {
		t.Errorf("got %s, %v, want %s", got, err, want)
	}
}
