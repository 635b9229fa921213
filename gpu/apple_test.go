package gpu

import (
	"testing"

	"github.com/vramjet/vramjet/schemas"
)

const vmStat = `Mach Virtual Memory Statistics: (page size of 16384 bytes)
Pages free:                              131072.
Pages active:                            891234.
Pages inactive:                          262144.
Pages speculative:                        65536.
Pages throttled:                              0.
"Translation faults":                 912345678.
`

func fakeSysctl(t *testing.T, chip, ram, limit string) string {
	t.Helper()
	return fakeSMI(t, `case "$*" in
"-n machdep.cpu.brand_string") echo "`+chip+`" ;;
"-n hw.memsize") echo "`+ram+`" ;;
"-n iogpu.wired_limit_mb") echo "`+limit+`" ;;
*) exit 1 ;;
esac
`)
}

func TestApple(t *testing.T) {
	s, err := openApple(t.Context(), fakeSysctl(t, "Apple M3 Max", "68719476736", "0"), fakeSMI(t, "cat <<'END'\n"+vmStat+"END\n"))
	if err != nil {
		t.Fatal(err)
	}
	k := schemas.Known
	want := schemas.Device{ID: "metal0", Name: "Apple M3 Max", Kind: "metal", Total: k(48 * schemas.GiB), Used: k(41 * schemas.GiB), Free: k(7 * schemas.GiB)}
	wantDevices(t, []schemas.Device{want}, mustRead(t, s))

	s, err = openApple(t.Context(), fakeSysctl(t, "Apple M1", "17179869184", "14336"), fakeSMI(t, "exit 1"))
	if err != nil {
		t.Fatal(err)
	}
	wantDevices(t, []schemas.Device{{ID: "metal0", Name: "Apple M1", Kind: "metal", Total: k(14 * schemas.GiB)}}, mustRead(t, s))

	for _, other := range []string{
		fakeSysctl(t, "Intel(R) Core(TM) i9", "17179869184", "0"), fakeSysctl(t, "Apple M1", "?", "0"), fakeSMI(t, "exit 1"), "/nonexistent",
	} {
		if s, err := openApple(t.Context(), other, "vm_stat"); err == nil {
			t.Errorf("opened %v", s)
		}
	}
}

func TestAppleBudget(t *testing.T) {
	for _, c := range []struct {
		ram   schemas.Bytes
		limit string
		want  schemas.Bytes
	}{
		{24 * schemas.GiB, "", 16 * schemas.GiB},
		{36 * schemas.GiB, "0", 27 * schemas.GiB},
		{64 * schemas.GiB, "57344", 56 * schemas.GiB},
		{64 * schemas.GiB, "99999999", 64 * schemas.GiB},
		{64 * schemas.GiB, "-1", 48 * schemas.GiB},
	} {
		if got := appleBudget(c.ram, c.limit); got != c.want {
			t.Errorf("of %s with limit %q: %s, want %s", c.ram, c.limit, got, c.want)
		}
	}
}

func FuzzParseVMStat(f *testing.F) {
	f.Add(vmStat)
	f.Add("page size of 4096 bytes)\nPages free: 1.\nPages inactive: -1.")
	f.Fuzz(func(t *testing.T, text string) {
		if got := parseVMStat(text); !got.Known && got.Bytes != 0 {
			t.Fatalf("%q reads as %v", text, got)
		}
	})
}
