package providers

import (
	"cmp"
	"net/http"
	"slices"
	"strconv"

	"github.com/vramjet/vramjet/schemas"
)

// readEmbeddings reads an answer with embeddings, OpenAI's or Ollama's, and returns
// it as OpenAI's: a vector for each input, in their order, and usage.
func (b *backend) readEmbeddings(raw, request []byte) (Answer, error) {
	found, ok := members(raw)
	if !ok {
		return Answer{}, schemas.Errorf(schemas.UpstreamError, "%s: the answer is not a JSON object", b.name)
	}
	var a answer
	var vectors []vector
	out := append(make([]byte, 0, len(raw)+96), `{"object":"list"`...)
	for _, m := range found {
		switch string(m.key) {
		case "error":
			if !isNull(m.value) {
				return Answer{}, b.failure(http.StatusOK, nil, raw)
			}
		case "object", "total_duration", "load_duration":
		case "usage":
			a.usage = m.value
		case "prompt_eval_count":
			a.usage = appendCounts(nil, schemas.Usage{PromptTokens: atoi(m.value), CompletionTokens: 0})
		case "data", "embeddings":
			vectors = readVectors(m.value)
		default:
			out = appendMember(out, m)
			a.members = append(a.members, m)
		}
	}
	if want := inputs(request); len(vectors) == 0 || want > 0 && len(vectors) != want {
		return Answer{}, schemas.Errorf(schemas.UpstreamError, "%s: the answer has %d embeddings for %d inputs", b.name, len(vectors), want)
	}
	out = append(out, `,"data":[`...)
	for i, v := range vectors {
		if i > 0 {
			out = append(out, ',')
		}
		out = v.append(out, i)
	}
	usage := embeddingUsage(&a, promptBytes(request))
	out = append(out, `],"usage":`...)
	out = appendUsage(out, usage)
	return Answer{Body: append(out, '}'), Usage: usage, Model: a.model()}, nil
}

// A vector is one embedding, as the text that it came as.
type vector struct {
	index int
	raw   []byte
}

// readVectors returns the vectors of a list, in the order that their indices say.
func readVectors(list []byte) []vector {
	var found []vector
	s := scanner{b: list}
	s.enter('[')
	for s.element('[', ']') {
		v := vector{index: len(found)}
		if s.peek() == '{' {
			v.index = indexOr(s, len(found))
		}
		v.raw = s.value()
		found = append(found, v)
	}
	slices.SortStableFunc(found, func(a, b vector) int { return cmp.Compare(a.index, b.index) })
	return found
}

func (v vector) append(out []byte, index int) []byte {
	if v.raw[0] == '{' {
		return append(out, v.raw...)
	}
	out = append(out, `{"object":"embedding","index":`...)
	out = append(strconv.AppendInt(out, int64(index), 10), `,"embedding":`...)
	return append(append(out, v.raw...), '}')
}

// inputs returns how many texts a request has embedded; 0: nobody can say.
func inputs(request []byte) int {
	found, _ := members(request)
	for _, m := range found {
		if string(m.key) != "input" {
			continue
		}
		s := scanner{b: m.value}
		if s.peek() != '[' {
			return 1
		}
		n := 0
		s.enter('[')
		for s.element('[', ']') {
			if c := s.peek(); c != '"' && c != '[' {
				return 1 // the tokens of one text
			}
			s.value()
			n++
		}
		return n
	}
	return 0
}

// embeddingUsage counts only the prompt: nothing is generated. LM Studio says 0
// tokens, whatever it was asked.
func embeddingUsage(a *answer, prompt int) schemas.Usage {
	u, _ := a.readUsage(prompt)
	if u.PromptTokens == 0 {
		u.PromptTokens = max(1, prompt/4)
	}
	u.CompletionTokens = 0
	u.TotalTokens = u.PromptTokens
	return u
}
