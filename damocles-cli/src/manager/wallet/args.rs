//! The arguments of `wallet`, as data. No secret is among them: arguments are seen by every user of the machine.

use crate::{manager::confirm::Agreed, supervised::Supervision};
use clap::{Args, Subcommand};
use damocles_chain::{
    signer::{KeyKind, Purpose},
    wallet::Method,
};
use damocles_core::{Address, TokenAmount};
use std::{net::SocketAddr, path::PathBuf, time::Duration};

/// A wallet and what is done with it.
#[derive(Clone, Debug, Args)]
pub struct WalletArgs {
    /// The wallet's file [default: `wallet` in the manager's directory]
    #[arg(long, global = true, value_name = "FILE")]
    pub wallet: Option<PathBuf>,
    /// Where the password comes from; without any, it is asked for.
    #[command(flatten)]
    pub password: PasswordArgs,
    /// What to do.
    #[command(subcommand)]
    pub command: WalletCommand,
}

/// Where a password comes from.
#[derive(Clone, Debug, Default, Args)]
pub struct PasswordArgs {
    /// Read the password from this file, whose mode is 0600
    #[arg(long, global = true, value_name = "FILE", conflicts_with = "password_env")]
    pub password_file: Option<PathBuf>,
    /// Read the password from the environment variable of this name
    #[arg(long, global = true, value_name = "NAME")]
    pub password_env: Option<String>,
}

/// The commands.
#[derive(Clone, Debug, Subcommand)]
pub enum WalletCommand {
    /// Make the wallet, or change its password
    Setpwd(SetPasswordArgs),
    /// Make a key
    New(NewArgs),
    /// Take a key in Lotus' form, from a file or standard input, or all of a Lotus keystore
    Import(ImportArgs),
    /// Print a key in Lotus' form
    Export(AddressArgs),
    /// The keys and what each may sign
    List(ListArgs),
    /// What the keys own, as the node says
    Balance(BalanceArgs),
    /// Show or set the address that is used where none is named
    Default(DefaultArgs),
    /// Show or set what a key may sign
    Policy(PolicyArgs),
    /// Wipe the keys from the memory of `wallet run`
    Lock(SocketArgs),
    /// Have `wallet run` read the keys into memory
    Unlock(SocketArgs),
    /// Whether the keys of `wallet run` can be used
    LockState(SocketArgs),
    /// Have `wallet run` sign for further accounts of the cluster, until it ends
    Support(SupportArgs),
    /// Sign bytes
    Sign(SignArgs),
    /// Check a signature; the exit code is 1 if it is not the address'
    Verify(VerifyArgs),
    /// Move a key to the trash, which stays in the file
    Delete(AddressArgs),
    /// Take a key back out of the trash
    Restore(AddressArgs),
    /// Sign for managers, nodes and gateways until told to stop
    Run(RunArgs),
}

/// The password and what it costs.
#[derive(Clone, Debug, Args)]
pub struct SetPasswordArgs {
    /// Read the new password from this file, whose mode is 0600
    #[arg(long, value_name = "FILE", conflicts_with = "new_password_env")]
    pub new_password_file: Option<PathBuf>,
    /// Read the new password from the environment variable of this name
    #[arg(long, value_name = "NAME")]
    pub new_password_env: Option<String>,
    /// The memory that each try of a password takes, in MiB
    #[arg(long, default_value_t = 256, value_name = "MIB", value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub memory: u32,
    /// The passes over that memory
    #[arg(long, default_value_t = 3, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=64))]
    pub passes: u32,
}

/// Which kind of key.
#[derive(Clone, Copy, Debug, Args)]
pub struct NewArgs {
    /// `bls` for workers, `secp256k1` for owners and control addresses
    pub kind: KeyKind,
}

/// Where a key comes from.
#[derive(Clone, Debug, Args)]
pub struct ImportArgs {
    /// A file with the text of `lotus wallet export` [default: standard input]
    pub file: Option<PathBuf>,
    /// All keys of this directory, the `keystore` of a Lotus repository
    #[arg(long, value_name = "DIR", conflicts_with = "file")]
    pub keystore: Option<PathBuf>,
}

/// Which key.
#[derive(Clone, Debug, Args)]
pub struct AddressArgs {
    /// The key's address
    pub address: Address,
}

/// Which keys are listed.
#[derive(Clone, Copy, Debug, Args)]
pub struct ListArgs {
    /// Those in the trash too
    #[arg(long)]
    pub trash: bool,
}

/// Whose balance.
#[derive(Clone, Debug, Args)]
pub struct BalanceArgs {
    /// The addresses [default: every key of the wallet]
    pub addresses: Vec<Address>,
}

/// Which default.
#[derive(Clone, Debug, Args)]
pub struct DefaultArgs {
    /// The new default; without it, the default is shown
    pub address: Option<Address>,
}

/// What a key may sign. Without a switch it is shown.
#[derive(Clone, Debug, Args)]
pub struct PolicyArgs {
    /// The key's address
    pub address: Address,
    /// Allow messages that call this method, by name or number; no others then
    #[arg(long = "method", value_name = "METHOD")]
    pub methods: Vec<Method>,
    /// Allow messages to this address, as messages write it; to no others then
    #[arg(long = "receiver", value_name = "ADDR")]
    pub receivers: Vec<Address>,
    /// Allow messages of one day (UTC) to cost so much in all, gas at its highest price included
    #[arg(long, value_name = "FIL")]
    pub daily: Option<TokenAmount>,
    /// Allow bytes of this kind that are no message, e.g. `block` or `verifyaddress`
    #[arg(long = "purpose", value_name = "WORD")]
    pub purposes: Vec<Purpose>,
    /// Allow messages of any method to anybody, and nothing else
    #[arg(long, conflicts_with_all = ["methods", "receivers"])]
    pub messages: bool,
    /// Allow everything
    #[arg(long, conflicts_with_all = ["methods", "receivers", "daily", "purposes", "messages"])]
    pub anything: bool,
    /// Allow any method again
    #[arg(long, conflicts_with_all = ["methods", "anything"])]
    pub any_method: bool,
    /// Allow any receiver again
    #[arg(long, conflicts_with_all = ["receivers", "anything"])]
    pub any_receiver: bool,
    /// Bound the cost of a day no more
    #[arg(long, conflicts_with_all = ["daily", "anything"])]
    pub no_daily: bool,
    /// Allow nothing any more that is no message
    #[arg(long, conflicts_with_all = ["purposes", "anything"])]
    pub no_purposes: bool,
    /// Whether it is asked, where more is allowed than before.
    #[command(flatten)]
    pub consent: Agreed,
}

/// Which `wallet run`.
#[derive(Clone, Debug, Args)]
pub struct SocketArgs {
    /// The socket of `wallet run` [default: `wallet.sock` in the manager's directory]
    #[arg(long, value_name = "PATH")]
    pub socket: Option<PathBuf>,
}

/// Which accounts.
#[derive(Clone, Debug, Args)]
pub struct SupportArgs {
    /// Their names in sophon-auth
    #[arg(value_name = "NAME", required = true)]
    pub accounts: Vec<String>,
    /// Which `wallet run`.
    #[command(flatten)]
    pub socket: SocketArgs,
}

/// A cluster that is signed for.
#[derive(Clone, Debug, Default, Args)]
pub struct GatewayArgs {
    // As text: the parser of arguments would repeat what it does not understand, token included.
    /// Sign for a Venus cluster too, through its gateway: a URL or a multiaddr, e.g. `ws://HOST:45132`
    #[arg(long, value_name = "ADDR", requires = "accounts")]
    pub gateway: Option<String>,
    /// Read the token of this wallet's account in sophon-auth from this file, whose mode is 0600
    #[arg(long, value_name = "FILE", requires = "gateway")]
    pub gateway_token_file: Option<PathBuf>,
    /// An account of the cluster that may have messages signed, once for each; `wallet support` adds more
    #[arg(long = "account", value_name = "NAME", requires = "gateway")]
    pub accounts: Vec<String>,
}

/// What is signed.
#[derive(Clone, Debug, Args)]
pub struct SignArgs {
    /// The key's address
    pub address: Address,
    /// The bytes, as hex
    pub bytes: String,
    /// What the bytes are for
    #[arg(long, default_value = "unknown", value_name = "WORD")]
    pub purpose: Purpose,
}

/// What is checked.
#[derive(Clone, Debug, Args)]
pub struct VerifyArgs {
    /// The address that should have signed
    pub address: Address,
    /// The bytes, as hex
    pub bytes: String,
    /// The signature, as `wallet sign` prints it
    pub signature: String,
}

/// How keys are served.
#[derive(Clone, Debug, Args)]
pub struct RunArgs {
    /// The Unix socket, for this user only; `wallet lock` and `wallet unlock` use it
    #[command(flatten)]
    pub socket: SocketArgs,
    /// Listen here too, loopback only, for callers with the token
    #[arg(long, value_name = "ADDR")]
    pub listen: Option<SocketAddr>,
    /// The token of those callers; made if it is not there [default: `wallet-token` in the manager's directory]
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// Lock the wallet when it has signed nothing for so long, e.g. `30min`
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    pub auto_lock: Option<Duration>,
    /// Begin without the password; `wallet unlock` gives it later
    #[arg(long)]
    pub locked: bool,
    /// The cluster.
    #[command(flatten)]
    pub gateway: GatewayArgs,
    /// How it was started.
    #[command(flatten)]
    pub supervision: Supervision,
}

#[cfg(test)]
mod tests {
    use crate::manager::args::ManagerArgs;
    use clap::{CommandFactory as _, Parser as _};

    #[test]
    fn help_is_as_documented() {
        let mut command = ManagerArgs::command().term_width(100);
        command.build();
        let wallet = command.find_subcommand_mut("wallet").unwrap();
        insta::assert_snapshot!("wallet_help", wallet.render_long_help());
        for name in ["setpwd", "policy", "run"] {
            let found = wallet.find_subcommand_mut(name).unwrap();
            insta::assert_snapshot!(format!("wallet_{name}_help"), found.render_long_help());
        }
    }

    #[test]
    fn no_secret_is_an_argument() {
        let mut command = ManagerArgs::command();
        command.build();
        let wallet = command.find_subcommand("wallet").unwrap();
        for sub in wallet.get_subcommands().chain([wallet]) {
            for name in sub.get_arguments().map(|a| a.get_id().as_str()) {
                assert!(!matches!(name, "password" | "new_password" | "key" | "private_key" | "token"), "{name}");
            }
        }
        for bad in [
            &["wallet", "new", "delegated"][..],
            &["wallet", "policy", "t01000", "--method", "Sned"],
            &["wallet", "policy", "t01000", "--anything", "--daily", "5"],
            &["wallet", "list", "--password-file", "a", "--password-env", "b"],
            &["wallet", "setpwd", "--memory", "0"],
            &["wallet", "run", "--auto-lock", "soon"],
            &["wallet", "run", "--gateway", "ws://a:1"],
            &["wallet", "run", "--account", "miners"],
            &["wallet", "support"],
        ] {
            assert!(ManagerArgs::try_parse_from(["m"].iter().chain(bad)).is_err(), "{bad:?}");
        }
    }
}
