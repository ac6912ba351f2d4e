// Registry serves images that are made on the fly from layers to suites of
// tests that insist on names of registries on the internet. It is for a
// private network namespace: on one port it is a plain registry, and on the
// other a proxy which takes connections to any host, answers them with the
// same registry, and signs for every name with a certificate authority of
// its own. So a client that trusts the authority and uses the proxy needs no
// change of names.
package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// image is an entry of the file of images.
type image struct {
	Refs   []string // REPOSITORY:TAG without a host: every host has them all
	Layers []string // tar files beside the file of images
	Arch   []string // more than one make an index; none is amd64
	Config v1.Config
}

func (im image) build(dir, arch string) (v1.Image, error) {
	img := v1.Image(empty.Image)
	for _, file := range im.Layers {
		layer, err := tarball.LayerFromFile(filepath.Join(dir, file))
		if err != nil {
			return nil, err
		}
		if img, err = mutate.AppendLayers(img, layer); err != nil {
			return nil, err
		}
	}
	config, err := img.ConfigFile()
	if err != nil {
		return nil, err
	}
	config = config.DeepCopy()
	config.OS, config.Architecture, config.Config = "linux", arch, im.Config
	return mutate.ConfigFile(img, config)
}

func (im image) push(addr, dir string) error {
	archs := im.Arch
	if len(archs) == 0 {
		archs = []string{"amd64"}
	}
	index := v1.ImageIndex(empty.Index)
	var img v1.Image
	for _, arch := range archs {
		var err error
		if img, err = im.build(dir, arch); err != nil {
			return err
		}
		index = mutate.AppendManifests(index, mutate.IndexAddendum{
			Add:        img,
			Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: arch}},
		})
	}
	for _, r := range im.Refs {
		ref, err := name.ParseReference(addr+"/"+r, name.Insecure)
		if err != nil {
			return err
		}
		if len(archs) > 1 {
			err = remote.WriteIndex(ref, index)
		} else {
			err = remote.Write(ref, img)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", r, err)
		}
	}
	return nil
}

// authority signs certificates for any name.
type authority struct {
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
}

func newAuthority() (*authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "registry of the test suites"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(der)
	return &authority{key: key, cert: cert}, err
}

func (a *authority) pem() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.cert.Raw})
}

func (a *authority) sign(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: hello.ServerName},
		DNSNames: []string{hello.ServerName}, NotBefore: a.cert.NotBefore, NotAfter: a.cert.NotAfter,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, &a.key.PublicKey, a.key)
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: a.key}, err
}

// handed is a listener for connections that something else accepted.
type handed struct {
	conns chan net.Conn
	addr  net.Addr
	once  sync.Once
}

func (h *handed) Accept() (net.Conn, error) {
	conn, ok := <-h.conns
	if !ok {
		return nil, net.ErrClosed
	}
	return conn, nil
}

func (h *handed) Addr() net.Addr { return h.addr }

func (h *handed) Close() error {
	h.once.Do(func() { close(h.conns) })
	return nil
}

// buffered is a connection of which some is read already.
type buffered struct {
	net.Conn
	r io.Reader
}

func (b buffered) Read(p []byte) (int, error) { return b.r.Read(p) }

// proxy answers CONNECT and gives what is inside to a TLS server.
func proxy(to chan<- net.Conn) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodConnect {
			http.Error(w, "only CONNECT", http.StatusMethodNotAllowed)
			return
		}
		conn, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			log.Print(err)
			return
		}
		if _, err := io.WriteString(conn, "HTTP/1.1 200 OK\r\n\r\n"); err != nil {
			conn.Close()
			return
		}
		to <- buffered{conn, rw.Reader}
	})
}

func run() error {
	addr := flag.String("addr", "127.0.0.1:5000", "address of the registry")
	proxyAddr := flag.String("proxy", "127.0.0.1:5001", "address of the proxy")
	file := flag.String("images", "images.json", "file of images")
	ca := flag.String("ca", "registry-ca.pem", "file to write the authority's certificate to")
	flag.Parse()

	text, err := os.ReadFile(*file)
	if err != nil {
		return err
	}
	var images []image
	if err := json.Unmarshal(text, &images); err != nil {
		return fmt.Errorf("%s: %w", *file, err)
	}
	authority, err := newAuthority()
	if err != nil {
		return err
	}
	if err := os.WriteFile(*ca, authority.pem(), 0o644); err != nil {
		return err
	}

	store := registry.New(registry.Logger(log.New(io.Discard, "", 0)))
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		log.Printf("%s %s%s", r.Method, r.Host, r.URL)
		store.ServeHTTP(w, r)
	})
	plain, err := net.Listen("tcp", *addr)
	if err != nil {
		return err
	}
	outer, err := net.Listen("tcp", *proxyAddr)
	if err != nil {
		return err
	}
	inner := &handed{conns: make(chan net.Conn), addr: outer.Addr()}
	ended := make(chan error, 3)
	go func() { ended <- http.Serve(plain, handler) }()
	go func() { ended <- http.Serve(outer, proxy(inner.conns)) }()
	go func() {
		ended <- http.Serve(tls.NewListener(inner, &tls.Config{GetCertificate: authority.sign}), handler)
	}()

	var errs []error
	for _, im := range images {
		errs = append(errs, im.push(*addr, filepath.Dir(*file)))
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	fmt.Println("ready")
	return <-ended
}

func main() {
	if err := run(); err != nil {
		log.Fatal("registry: ", err)
	}
}
