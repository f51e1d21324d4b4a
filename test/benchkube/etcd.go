package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"sync"

	"github.com/unmasq/unmasq/test/kube"
)

// etcd speaks the JSON that etcd knows beside gRPC.
type etcd struct{ client *http.Client }

func newEtcd(control *kube.Host) *etcd {
	return &etcd{&http.Client{Transport: &http.Transport{DialContext: control.Dial, MaxIdleConnsPerHost: writers}}}
}

// pair is a key and its value.
type pair struct {
	Key   []byte `json:"key"`
	Value []byte `json:"value,omitempty"`
}

const (
	// writers write at once, pairs at most in one transaction (etcd takes 128, and
	// 1.5 MB).
	writers, pairs, bytesMost = 4, 100, 1 << 20
	etcdURL                   = "http://127.0.0.1:2379/v3/kv/"
)

// get a key's value.
func (e *etcd) get(ctx context.Context, key string) ([]byte, error) {
	var answer struct{ Kvs []pair }
	if err := e.ask(ctx, "range", pair{Key: []byte(key)}, &answer); err != nil {
		return nil, err
	}
	if len(answer.Kvs) != 1 {
		return nil, fmt.Errorf("etcd has %d values of %s, expected one", len(answer.Kvs), key)
	}
	return answer.Kvs[0].Value, nil
}

// put n pairs, made one after the other by several goroutines.
func (e *etcd) put(ctx context.Context, n int, pairOf func(i int) (pair, error)) error {
	errs := make([]error, writers)
	var all sync.WaitGroup
	for w := range writers {
		all.Go(func() { errs[w] = e.putPart(ctx, w*n/writers, (w+1)*n/writers, pairOf) })
	}
	all.Wait()
	return errors.Join(errs...)
}

func (e *etcd) putPart(ctx context.Context, from, to int, pairOf func(i int) (pair, error)) error {
	var batch []pair
	size := 0
	for i := from; i < to; i++ {
		p, err := pairOf(i)
		if err != nil {
			return err
		}
		if len(batch) == pairs || len(batch) > 0 && size+len(p.Value) > bytesMost {
			if err := e.transact(ctx, batch); err != nil {
				return err
			}
			batch, size = batch[:0], 0
		}
		batch, size = append(batch, p), size+len(p.Value)
	}
	return e.transact(ctx, batch)
}

func (e *etcd) transact(ctx context.Context, batch []pair) error {
	type operation struct {
		Put pair `json:"requestPut"`
	}
	var t struct {
		Success []operation `json:"success"`
	}
	for _, p := range batch {
		t.Success = append(t.Success, operation{p})
	}
	return e.ask(ctx, "txn", t, nil)
}

func (e *etcd) ask(ctx context.Context, what string, question, answer any) error {
	text, err := json.Marshal(question)
	if err != nil {
		return err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, etcdURL+what, bytes.NewReader(text))
	if err != nil {
		return err
	}
	resp, err := e.client.Do(r)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	said, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		return fmt.Errorf("etcd: %s: %s: %w", what, resp.Status, errors.Join(err, errors.New(string(slices.Clip(said)))))
	}
	if answer == nil {
		return nil
	}
	return json.Unmarshal(said, answer)
}
