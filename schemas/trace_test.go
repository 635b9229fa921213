package schemas

import (
	"context"
	"testing"
)

func TestTraceparent(t *testing.T) {
	const sound = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
	for given, want := range map[string]string{
		sound: sound, "": "", "x": "", "00-0-0-01": "",
		"00-00000000000000000000000000000000-00f067aa0ba902b7-01": "",
	} {
		if got := Traceparent(WithTraceparent(context.Background(), given)); got != want {
			t.Errorf("%q becomes %q, want %q", given, got, want)
		}
	}
}
