package sim

import (
	"hash/fnv"
	"strings"
)

// The story, a token a word. Some words hold what JSON and UTF-8 make hard.
const story = `Once upon a time there was a little fox who lived by the river. ` +
	`Every morning she counted the stones on the shore and every evening the river moved one of them. ` +
	`"Who are you?" asked the fox. The river said “I am the one who carries” and went on. ` +
	`So the fox sat down, naïve and très curious, and waited until the stars came out ✨ one by one. ` +
	`When the last stone was gone she laughed, for now she knew that the river had built a bridge. `

// words are the tokens: each with the space that follows it.
var words = strings.SplitAfter(strings.TrimSuffix(story, " "), " ")

// Text returns what a model answers to a prompt in that many tokens, when nothing
// stops it before. For a chat, prompt is the content of the last message.
func Text(prompt string, tokens int) string {
	var b strings.Builder
	at := start(prompt)
	for i := range tokens {
		b.WriteString(word(at, i))
	}
	return b.String()
}

// start returns where in the story the answer to a prompt begins.
func start(prompt string) int {
	h := fnv.New32a()
	_, _ = h.Write([]byte(prompt)) // never fails
	return int(h.Sum32() % uint32(len(words)))
}

func word(start, i int) string {
	w := words[(start+i)%len(words)]
	if !strings.HasSuffix(w, " ") {
		return w + " "
	}
	return w
}

// count returns how many tokens a prompt has: about 4 bytes each, at least one.
func count(text string) int { return 1 + len(text)/4 }

// vector returns the embedding of a text: the same for the same text.
func vector(text string) []float64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(text)) // never fails
	x := h.Sum64()
	v := make([]float64, 8)
	for i := range v {
		x = x*6364136223846793005 + 1442695040888963407
		v[i] = float64(int64(x>>11)-(1<<52)) / (1 << 52)
	}
	return v
}
