package schemas

import (
	"encoding/json"
	"testing"

	"pgregory.net/rapid"
)

func TestParseBytes(t *testing.T) {
	for s, want := range map[string]Bytes{
		"0": 0, "17": 17, " 17 ": 17, "44GiB": 44 * GiB, "44 GiB": 44 * GiB, "1.5GiB": 3 * GiB / 2, ".5MiB": MiB / 2, "512MiB": 512 * MiB, "100KiB": 100 * KiB,
		"18446744073709551615": 1<<64 - 1,
	} {
		if got, err := ParseBytes(s); err != nil || got != want {
			t.Errorf("ParseBytes(%q) = %d, %v, want %d", s, got, err, want)
		}
	}
	for _, s := range []string{
		"", "GiB", "-1", "-1GiB", "+1GiB", "1.5", "1GB", "1 gib", "x", "NaNGiB", "InfGiB", "1e3GiB", "0x1p4GiB", "1_0GiB", "1GiBGiB", "1.2.3GiB",
		"18446744073709551616", "99999999999GiB",
	} {
		if got, err := ParseBytes(s); err == nil {
			t.Errorf("ParseBytes(%q) = %d, want an error", s, got)
		}
	}
}

func FuzzParseBytes(f *testing.F) {
	f.Add("1.5GiB")
	f.Add("NaNKiB")
	f.Fuzz(func(t *testing.T, s string) {
		if b, err := ParseBytes(s); err == nil && b.String() == "" {
			t.Error("no text")
		}
	})
}

func TestBytesString(t *testing.T) {
	for b, want := range map[Bytes]string{0: "0 B", 17: "17 B", KiB: "1.0 KiB", 512 * MiB: "512.0 MiB", 21*GiB + 307*MiB: "21.3 GiB"} {
		if got := b.String(); got != want {
			t.Errorf("%d is %q, want %q", uint64(b), got, want)
		}
	}
}

func TestBytesMinus(t *testing.T) {
	if got := (5 * GiB).Minus(2 * GiB); got != 3*GiB {
		t.Errorf("5-2 GiB = %s", got)
	}
	if got := (2 * GiB).Minus(5 * GiB); got != 0 {
		t.Errorf("2-5 GiB = %s", got)
	}
}

func TestAmountJSON(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := Amount{}
		if rapid.Bool().Draw(t, "known") {
			want = Known(Bytes(rapid.Uint64().Draw(t, "bytes")))
		}
		text, err := json.Marshal(want)
		if err != nil {
			t.Fatal(err)
		}
		got := Known(1)
		if err := json.Unmarshal(text, &got); err != nil || got != want {
			t.Fatalf("%s reads as %v, %v, want %v", text, got, err, want)
		}
	})
	for text, want := range map[string]string{"null": "unknown", "0": "0 B", "1073741824": "1.0 GiB"} {
		var a Amount
		if err := json.Unmarshal([]byte(text), &a); err != nil || a.String() != want {
			t.Errorf("%s reads as %q, %v, want %q", text, a, err, want)
		}
	}
	for _, text := range []string{`-1`, `1.5`, `"1"`, `{}`, `18446744073709551616`} {
		var a Amount
		if err := json.Unmarshal([]byte(text), &a); err == nil {
			t.Errorf("%s reads as %v, want an error", text, a)
		}
	}
}
