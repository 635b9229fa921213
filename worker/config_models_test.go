package worker

import (
	"testing"

	"github.com/vramjet/vramjet/schemas"
)

func TestConfigOf(t *testing.T) {
	need := func(n schemas.Bytes) ModelConfig { return ModelConfig{Need: schemas.Known(n)} }
	models := map[string]ModelConfig{"qwen3:4b": need(1), "qwen3:*": need(2), "qwen*": need(3), "?wen3:*": need(4), "[": need(5)}
	for name, want := range map[string]schemas.Amount{
		"qwen3:4b":   schemas.Known(1),
		"qwen3:8b":   schemas.Known(4), // of two of the same length the first
		"qwen2.5":    schemas.Known(3),
		"a/qwen3:8b": {},
	} {
		if got := configOf(models, name); got.Need != want {
			t.Errorf("%s needs %s, want %s", name, got.Need, want)
		}
	}
}
