// Package awsauth signs requests to AWS, by its Signature Version 4.
//
// Credentials are what the caller says. Those of instance and task roles, of SSO
// and of profiles in files are not looked for: AWS's library for that would make
// the program a seventh larger. Bedrock takes API keys instead.
package awsauth

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
)

// Credentials are the keys of an AWS account, or temporary ones with the token of
// their session; "" without.
type Credentials struct{ AccessKeyID, SecretAccessKey, SessionToken string }

// region is what a label of a host looks like that names a region of AWS.
var region = regexp.MustCompile(`^[a-z]{2,4}(-[a-z]+)+-[0-9]+$`)

// Signer returns the function for providers.Config.Sign. Service and region are
// read from each request's host. It asks for the credentials before each request,
// so that new ones count at once.
func Signer(credentials func() Credentials) func(r *http.Request, body []byte) error {
	signer := v4.NewSigner()
	return func(r *http.Request, body []byte) error {
		c := credentials()
		if c.AccessKeyID == "" || c.SecretAccessKey == "" {
			return errors.New("no AWS credentials")
		}
		service, where, err := scope(r.URL.Hostname())
		if err != nil {
			return err
		}
		sum := sha256.Sum256(body)
		return signer.SignHTTP(r.Context(), aws.Credentials{
			AccessKeyID: c.AccessKeyID, SecretAccessKey: c.SecretAccessKey, SessionToken: c.SessionToken,
		}, r, hex.EncodeToString(sum[:]), service, where, time.Now())
	}
}

// scope returns what a signature for a host is good for: one service in one region.
func scope(host string) (service, where string, err error) {
	service = "bedrock"
	for label := range strings.SplitSeq(host, ".") {
		if label == "bedrock-mantle" {
			service = label
		}
		if region.MatchString(label) {
			where = label
		}
	}
	if where == "" {
		return "", "", fmt.Errorf("the host %s names no region of AWS", host)
	}
	return service, where, nil
}
