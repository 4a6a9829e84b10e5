# For Homebrew on Linux. The archive is what `packaging/build source` makes: put it where `url` says, and its sum
# of SHA256SUMS into `sha256`.
class Gatereeve < Formula
  desc "WireGuard-based zero-trust overlay network"
  homepage "https://gatereeve.invalid/"
  url "https://gatereeve.invalid/gatereeve-0.2.0.tar.gz"
  sha256 "0000000000000000000000000000000000000000000000000000000000000000"
  license "Apache-2.0"

  depends_on "cmake" => :build
  depends_on "rust" => :build
  depends_on :linux

  def install
    system "cargo", "install", *std_cargo_args(path: "client")
    system "cargo", "install", *std_cargo_args(path: "controller")
    (etc/"gatereeve").install "packaging/config/client.toml", "packaging/config/controller.toml"
    (pkgshare/"examples").install "packaging/config/policy.toml"
    %w[gatereeve gatereeve-controller].each do |program|
      generate_completions_from_executable(bin/program, "completions", shells: [:bash, :zsh, :fish])
      system bin/program, "man", "--out", man8
    end
  end

  service do
    run [opt_bin/"gatereeve", "daemon", "--config-dir", etc/"gatereeve"]
    require_root true
    keep_alive crashed: true
  end

  test do
    assert_match version.to_s, shell_output("#{bin}/gatereeve --version")
    system bin/"gatereeve-controller", "--state-dir", testpath/"state", "init", "--advertise", "192.0.2.1:8443"
    assert_path_exists testpath/"state/network.key"
  end
end
